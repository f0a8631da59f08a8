package io.jtrelu.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.reference.ReferenceProvider;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

class ParametersTest {
  private static final Network NETWORK = ProgramTest.networks().get(2);

  static List<Tensor> tensors(Network network) {
    List<Tensor> tensors = new ArrayList<>();
    for (ParameterSpec spec : network.parameters()) {
      boolean weights = spec.kind() == ParameterSpec.Kind.WEIGHTS;
      tensors.add(
          Tensor.allocate(spec.shape(), DataType.F32, weights ? Layout.KRSC : Layout.ROW_MAJOR));
    }
    return tensors;
  }

  /** The same seed fills the same values, wherever they lie. */
  @Test
  void memoryOfTheCallerIsUsedAsItIs() {
    try (Backend backend = new ReferenceProvider().open(0);
        Parameters own = Parameters.allocate(NETWORK, backend);
        Tensor arena = Tensor.allocate(own.arena().shape(), DataType.F32, Layout.ROW_MAJOR)) {
      List<Tensor> tensors = tensors(NETWORK);
      Initializer.delta(3).fill(backend, own);
      try (Parameters flat = Parameters.over(NETWORK, arena);
          Parameters listed = Parameters.over(NETWORK, tensors)) {
        assertSame(arena, flat.arena());
        Initializer.delta(3).fill(backend, flat);
        Initializer.delta(3).fill(backend, listed);
        assertEquals(own.weightElements(), listed.weightElements());
        var none = assertThrows(IllegalStateException.class, listed::arena);
        assertTrue(none.getMessage().contains("view(index)"), none.getMessage());
        assertThrows(IllegalStateException.class, listed::weights);
        assertThrows(IllegalStateException.class, listed::biases);
        assertArrayEquals(own.weights().toFloatArray(), flat.weights().toFloatArray());
      }
      // Both are closed; the memory is still there.
      assertArrayEquals(own.arena().toFloatArray(), arena.toFloatArray());
      for (int p = 0; p < tensors.size(); p++) {
        assertArrayEquals(own.view(p).toFloatArray(), tensors.get(p).toFloatArray());
        tensors.get(p).close();
      }
    }
  }

  @Test
  void saysWhatDoesNotFit() {
    int elements = (int) Parameters.arenaElements(NETWORK);
    for (Tensor wrong :
        List.of(
            Tensor.allocate(Shape.of(elements - 16), DataType.F32, Layout.ROW_MAJOR),
            Tensor.allocate(Shape.of(elements), DataType.I32, Layout.ROW_MAJOR))) {
      var error = assertThrows(OperandException.class, () -> Parameters.over(NETWORK, wrong));
      assertTrue(error.getMessage().contains(elements + " elements"), error.getMessage());
      wrong.close();
    }
    List<Tensor> tensors = tensors(NETWORK);
    var count =
        assertThrows(OperandException.class, () -> Parameters.over(NETWORK, tensors.subList(0, 3)));
    assertTrue(count.getMessage().contains("got 3 tensors"), count.getMessage());
    Shape second = tensors.get(1).shape();
    for (Tensor wrong :
        List.of(
            Tensor.allocate(Shape.of(1, 1, 1, 1), DataType.F32, Layout.KRSC),
            Tensor.allocate(second, DataType.BF16, Layout.KRSC),
            Tensor.allocate(second, DataType.F32, Layout.NHWC))) {
      List<Tensor> some = new ArrayList<>(tensors);
      some.set(1, wrong);
      var error = assertThrows(OperandException.class, () -> Parameters.over(NETWORK, some));
      assertTrue(
          error.getMessage().contains(NETWORK.parameters().get(1).name()), error.getMessage());
      wrong.close();
    }
    tensors.forEach(Tensor::close);
  }

  /** Address space without memory: nothing may touch it. */
  private static Backend withoutMemory(Backend backend, List<Tensor> allocated) {
    return (Backend)
        Proxy.newProxyInstance(
            ParametersTest.class.getClassLoader(),
            new Class<?>[] {Backend.class},
            (proxy, method, arguments) -> {
              if (method.getName().equals("allocate")) {
                Shape shape = (Shape) arguments[0];
                DataType type = (DataType) arguments[1];
                MemorySegment nowhere =
                    MemorySegment.ofAddress(4096).reinterpret(Tensor.byteSize(shape, type));
                Tensor tensor = Tensor.wrap(nowhere, shape, type, (Layout) arguments[2]);
                allocated.add(tensor);
                return tensor;
              }
              try {
                return method.invoke(backend, arguments);
              } catch (InvocationTargetException failure) {
                throw failure.getCause();
              }
            });
  }

  /** Sizes at which an int would not do: 256 images of 224 x 224 in a ResNet-50. */
  @Test
  void aWorkspaceMayPassTwoBillionElements() {
    Network network =
        Networks.build(Networks.Options.of("resnet50"), new Layer.Extent(224, 224, 4), 1000);
    List<Tensor> allocated = new ArrayList<>();
    try (Backend reference = new ReferenceProvider().open(0)) {
      Backend backend = withoutMemory(reference, allocated);
      try (Program program = new Program(network, backend, 256, ProgramTest.training());
          var stream = reference.newStream()) {
        long bytes = program.workspaceBytes();
        // Each of 49 outputs once, 256 images of 11 million values less what is not held.
        assertTrue(bytes > 8L << 30, bytes + " bytes");
        assertTrue(bytes / 4 > Integer.MAX_VALUE, bytes + " bytes");
        allocated.clear();
        program.newWorkspace(stream).close();
        long block = allocated.stream().mapToLong(Tensor::bytes).max().orElseThrow();
        assertEquals(bytes, block);
      }
    }
  }

  /** An arena of 2.2 billion values: 70 fully connected layers of 5600. */
  @Test
  void anArenaMayPassTwoBillionElements() {
    Network.Builder b = Network.builder("large", 1, 1, 5600);
    int x = b.input();
    for (int i = 0; i < 70; i++) {
      x = b.linear("layer" + i, x, 5600);
    }
    Network network = b.build();
    List<Tensor> allocated = new ArrayList<>();
    try (Backend reference = new ReferenceProvider().open(0);
        Parameters parameters = Parameters.allocate(network, withoutMemory(reference, allocated))) {
      long weights = 70L * 5600 * 5600; // a multiple of 16, as 5600 is
      assertEquals(weights, parameters.weights().shape().elements());
      assertEquals(70L * 5600, parameters.biases().shape().elements());
      assertEquals(weights + 70L * 5600, parameters.arena().shape().elements());
      assertEquals(4096 + 4 * 69L * 5600 * 5600, parameters.view(69).address()); // the last weights
      assertEquals(allocated.getFirst().bytes(), 4 * (weights + 70L * 5600));
    }
  }
}
