package io.jtrelu.benchmarks.peers;

import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_BIAS;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DIFF_BIAS;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DIFF_DST;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DIFF_SRC;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DIFF_WEIGHTS;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DST;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_FROM;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_SRC;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_TO;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_WEIGHTS;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.benchmarks.Contender;
import io.jtrelu.benchmarks.Workload;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.MaxPoolingLayer;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.NormalizedSumLayer;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.bytedeco.dnnl.IntMemoryMap;
import org.bytedeco.dnnl.convolution_backward_data;
import org.bytedeco.dnnl.convolution_backward_weights;
import org.bytedeco.dnnl.convolution_forward;
import org.bytedeco.dnnl.eltwise_backward;
import org.bytedeco.dnnl.eltwise_forward;
import org.bytedeco.dnnl.engine;
import org.bytedeco.dnnl.global.dnnl;
import org.bytedeco.dnnl.memory;
import org.bytedeco.dnnl.primitive;
import org.bytedeco.dnnl.reorder;
import org.bytedeco.dnnl.stream;
import org.bytedeco.javacpp.Loader;

/**
 * Plain oneDNN: its primitives one after the other over the whole batch, on its own threads, each
 * in the memory format it asks for. Convolution with bias, rectifier and scale are three
 * primitives; gradients of rectifier and scale are one each. It shows what fusion and the spreading
 * of micro-batches add. Chains only. SGD with momentum, without clipping, in Java loops.
 */
public final class OneDnnContender implements Contender {
  private final Workload workload;
  private final engine cpu;
  private final stream queue;
  private final List<ConvolutionLayer> layers = new ArrayList<>();
  private final List<Call> setUp = new ArrayList<>();
  private final List<Call> forward = new ArrayList<>();
  private final List<Call> backward = new ArrayList<>();
  private final memory[] weights; // KRSC, as the optimiser keeps them
  private final memory[] biases;
  private final memory[] diffWeights;
  private final memory[] diffBiases;
  private final float[][] velocity;
  private final memory features; // the last convolution's activation, NHWC
  private final memory diffFeatures;
  private final float[] logits;
  private final float[] diffLogits;
  private final float[] pooled;

  private record Call(primitive operation, IntMemoryMap arguments) {}

  /** Makes all primitives for a chain. */
  public OneDnnContender(Workload workload) {
    Loader.load(dnnl.class);
    this.workload = workload;
    cpu = new engine(engine.kind.cpu, 0);
    queue = new stream(cpu);
    for (Layer layer : workload.network().layers()) {
      switch (layer) {
        case ConvolutionLayer convolution -> layers.add(convolution);
        case NormalizedSumLayer sum ->
            throw new IllegalArgumentException("plain oneDNN is written for chains only");
        case MaxPoolingLayer pool ->
            throw new IllegalArgumentException("plain oneDNN is written for chains only");
        default -> {}
      }
    }
    int count = layers.size(); // the last one gives the logits
    weights = new memory[count];
    biases = new memory[count];
    diffWeights = new memory[count];
    diffBiases = new memory[count];
    velocity = new float[2 * count][];
    List<ParameterSpec> specs = workload.network().parameters();
    for (int i = 0; i < count; i++) {
      Conv2dDescriptor d = layers.get(i).descriptor();
      memory.desc format = krsc(d);
      weights[i] = new memory(format, cpu);
      diffWeights[i] = new memory(format, cpu);
      biases[i] = new memory(vector(d.oc()), cpu);
      diffBiases[i] = new memory(vector(d.oc()), cpu);
      copy(specs.get(i), weights[i]);
      copy(specs.get(count + i), biases[i]);
      velocity[i] = new float[Math.toIntExact(d.weights().elements())];
      velocity[count + i] = new float[d.oc()];
    }
    Conv2dDescriptor last = layers.get(count - 2).descriptor();
    features = new memory(nhwc(workload.batch(), last.oh(), last.ow(), last.oc()), cpu);
    diffFeatures = new memory(nhwc(workload.batch(), last.oh(), last.ow(), last.oc()), cpu);
    logits = new float[workload.batch() * workload.network().classes()];
    diffLogits = new float[logits.length];
    pooled = new float[workload.batch() * last.oc()];
    build();
    queue._wait();
  }

  private void copy(ParameterSpec spec, memory to) {
    MemorySegment.copy(
        workload.parameters(),
        Math.toIntExact(spec.offset()),
        segment(to),
        ValueLayout.JAVA_FLOAT,
        0,
        Math.toIntExact(spec.shape().elements()));
  }

  private static MemorySegment segment(memory of) {
    return MemorySegment.ofAddress(of.get_data_handle().address())
        .reinterpret(of.get_desc().get_size());
  }

  private static memory.desc any(long... dims) {
    return new memory.desc(dims, memory.data_type.f32, memory.format_tag.any);
  }

  private static memory.desc nhwc(int n, int h, int w, int c) {
    return new memory.desc(new long[] {n, c, h, w}, memory.data_type.f32, memory.format_tag.nhwc);
  }

  private static memory.desc krsc(Conv2dDescriptor d) {
    return new memory.desc(
        new long[] {d.oc(), d.ic(), d.kh(), d.kw()}, memory.data_type.f32, memory.format_tag.ohwi);
  }

  private static memory.desc vector(long n) {
    return new memory.desc(new long[] {n}, memory.data_type.f32, memory.format_tag.x);
  }

  private static IntMemoryMap arguments(Object... pairs) {
    IntMemoryMap map = new IntMemoryMap();
    for (int i = 0; i < pairs.length; i += 2) {
      map.put((Integer) pairs[i], (memory) pairs[i + 1]);
    }
    return map;
  }

  /** A memory in the format, filled from one in another by a reorder, if they differ. */
  private memory in(memory.desc format, memory from, List<Call> calls) {
    if (from.get_desc().equals(format)) {
      return from;
    }
    memory to = new memory(format, cpu);
    calls.add(new Call(new reorder(from, to), arguments(DNNL_ARG_FROM, from, DNNL_ARG_TO, to)));
    return to;
  }

  private void build() {
    var in = workload.network().input();
    int n = workload.batch();
    memory images = new memory(nhwc(n, in.height(), in.width(), in.channels()), cpu);
    MemorySegment.copy(
        workload.images(), 0, segment(images), ValueLayout.JAVA_FLOAT, 0, workload.images().length);
    int count = layers.size() - 1;
    memory x = images;
    memory[] sources = new memory[count];
    List<convolution_forward.primitive_desc> hints = new ArrayList<>();
    List<memory> rectified = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      Conv2dDescriptor d = layers.get(i).descriptor();
      var hint =
          new convolution_forward.primitive_desc(
              cpu,
              dnnl.prop_kind.forward_training,
              dnnl.algorithm.convolution_direct,
              any(n, d.ic(), d.h(), d.w()),
              any(d.oc(), d.ic(), d.kh(), d.kw()),
              vector(d.oc()),
              any(n, d.oc(), d.oh(), d.ow()),
              new long[] {d.strideH(), d.strideW()},
              new long[] {d.padTop(), d.padLeft()},
              new long[] {d.padBottom(), d.padRight()});
      memory src = in(hint.src_desc(), x, i == 0 ? setUp : forward);
      memory packed = in(hint.weights_desc(), weights[i], forward);
      memory dst = new memory(hint.dst_desc(), cpu);
      forward.add(
          new Call(
              new convolution_forward(hint),
              arguments(
                  DNNL_ARG_SRC,
                  src,
                  DNNL_ARG_WEIGHTS,
                  packed,
                  DNNL_ARG_BIAS,
                  biases[i],
                  DNNL_ARG_DST,
                  dst)));
      // In place: the derivative needs the output alone.
      forward.add(
          new Call(
              new eltwise_forward(rectifier(hint.dst_desc())),
              arguments(DNNL_ARG_SRC, dst, DNNL_ARG_DST, dst)));
      memory scaled = new memory(hint.dst_desc(), cpu);
      forward.add(
          new Call(
              new eltwise_forward(linear(hint.dst_desc())),
              arguments(DNNL_ARG_SRC, dst, DNNL_ARG_DST, scaled)));
      hints.add(hint);
      sources[i] = src;
      rectified.add(dst);
      x = scaled;
    }
    forward.add(
        new Call(new reorder(x, features), arguments(DNNL_ARG_FROM, x, DNNL_ARG_TO, features)));

    memory gradient = diffFeatures;
    for (int i = count - 1; i >= 0; i--) {
      Conv2dDescriptor d = layers.get(i).descriptor();
      var hint = hints.get(i);
      memory.desc format = hint.dst_desc();
      memory at = in(format, gradient, backward);
      backward.add(
          new Call(
              new eltwise_backward(
                  new eltwise_backward.primitive_desc(
                      cpu,
                      dnnl.algorithm.eltwise_linear,
                      format,
                      format,
                      format,
                      workload.rectifier().scale(),
                      0,
                      linear(format))),
              arguments(
                  DNNL_ARG_SRC, rectified.get(i), DNNL_ARG_DIFF_DST, at, DNNL_ARG_DIFF_SRC, at)));
      backward.add(
          new Call(
              new eltwise_backward(
                  new eltwise_backward.primitive_desc(
                      cpu,
                      dnnl.algorithm.eltwise_relu_use_dst_for_bwd,
                      format,
                      format,
                      format,
                      workload.rectifier().slope(),
                      rectifier(format))),
              arguments(
                  DNNL_ARG_DST, rectified.get(i), DNNL_ARG_DIFF_DST, at, DNNL_ARG_DIFF_SRC, at)));
      long[] strides = {d.strideH(), d.strideW()};
      long[] begin = {d.padTop(), d.padLeft()};
      long[] end = {d.padBottom(), d.padRight()};
      var byWeights =
          new convolution_backward_weights.primitive_desc(
              cpu,
              dnnl.algorithm.convolution_direct,
              any(n, d.ic(), d.h(), d.w()),
              any(d.oc(), d.ic(), d.kh(), d.kw()),
              vector(d.oc()),
              any(n, d.oc(), d.oh(), d.ow()),
              strides,
              begin,
              end,
              hint);
      memory blocked = new memory(byWeights.diff_weights_desc(), cpu);
      backward.add(
          new Call(
              new convolution_backward_weights(byWeights),
              arguments(
                  DNNL_ARG_SRC,
                  in(byWeights.src_desc(), sources[i], backward),
                  DNNL_ARG_DIFF_DST,
                  in(byWeights.diff_dst_desc(), at, backward),
                  DNNL_ARG_DIFF_WEIGHTS,
                  blocked,
                  DNNL_ARG_DIFF_BIAS,
                  diffBiases[i])));
      backward.add(
          new Call(
              new reorder(blocked, diffWeights[i]),
              arguments(DNNL_ARG_FROM, blocked, DNNL_ARG_TO, diffWeights[i])));
      if (i > 0) {
        var byData =
            new convolution_backward_data.primitive_desc(
                cpu,
                dnnl.algorithm.convolution_direct,
                any(n, d.ic(), d.h(), d.w()),
                any(d.oc(), d.ic(), d.kh(), d.kw()),
                any(n, d.oc(), d.oh(), d.ow()),
                strides,
                begin,
                end,
                hint);
        gradient = new memory(byData.diff_src_desc(), cpu);
        memory packed = in(byData.weights_desc(), weights[i], backward);
        memory diff = in(byData.diff_dst_desc(), at, backward);
        backward.add(
            new Call(
                new convolution_backward_data(byData),
                arguments(
                    DNNL_ARG_DIFF_DST, diff,
                    DNNL_ARG_WEIGHTS, packed,
                    DNNL_ARG_DIFF_SRC, gradient)));
      }
    }
    run(setUp);
  }

  private eltwise_forward.primitive_desc rectifier(memory.desc format) {
    return new eltwise_forward.primitive_desc(
        cpu,
        dnnl.prop_kind.forward_training,
        dnnl.algorithm.eltwise_relu_use_dst_for_bwd,
        format,
        format,
        workload.rectifier().slope());
  }

  private eltwise_forward.primitive_desc linear(memory.desc format) {
    return new eltwise_forward.primitive_desc(
        cpu,
        dnnl.prop_kind.forward_training,
        dnnl.algorithm.eltwise_linear,
        format,
        format,
        workload.rectifier().scale(),
        0f);
  }

  private void run(List<Call> calls) {
    for (Call call : calls) {
      call.operation.execute(queue, call.arguments);
    }
    queue._wait();
  }

  private float pass() {
    logits();
    float loss = loss();
    int last = layers.size() - 1;
    Conv2dDescriptor d = layers.get(last).descriptor();
    MemorySegment w = segment(weights[last]);
    MemorySegment dw = segment(diffWeights[last]).fill((byte) 0);
    MemorySegment db = segment(diffBiases[last]).fill((byte) 0);
    MemorySegment dx = segment(diffFeatures);
    int channels = d.ic();
    int locations = Math.toIntExact(dx.byteSize() / Float.BYTES / workload.batch() / channels);
    float[] row = new float[channels];
    for (int i = 0; i < workload.batch(); i++) {
      Arrays.fill(row, 0);
      for (int k = 0; k < d.oc(); k++) {
        float g = diffLogits[i * d.oc() + k];
        add(db, k, g);
        for (int c = 0; c < channels; c++) {
          add(dw, (long) k * channels + c, g * pooled[i * channels + c]);
          row[c] += g * w.getAtIndex(ValueLayout.JAVA_FLOAT, (long) k * channels + c) / locations;
        }
      }
      for (int p = 0; p < locations; p++) {
        MemorySegment.copy(
            row,
            0,
            dx,
            ValueLayout.JAVA_FLOAT,
            ((long) i * locations + p) * channels * Float.BYTES,
            channels);
      }
    }
    run(backward);
    return loss;
  }

  private static void add(MemorySegment to, long index, float value) {
    to.setAtIndex(
        ValueLayout.JAVA_FLOAT, index, to.getAtIndex(ValueLayout.JAVA_FLOAT, index) + value);
  }

  /** Convolutions, then mean over locations and the last layer, which are next to nothing. */
  private void logits() {
    run(forward);
    int last = layers.size() - 1;
    Conv2dDescriptor d = layers.get(last).descriptor();
    int channels = d.ic();
    MemorySegment x = segment(features);
    MemorySegment w = segment(weights[last]);
    MemorySegment b = segment(biases[last]);
    int locations = Math.toIntExact(x.byteSize() / Float.BYTES / workload.batch() / channels);
    Arrays.fill(pooled, 0);
    for (int i = 0; i < workload.batch(); i++) {
      for (int p = 0; p < locations; p++) {
        for (int c = 0; c < channels; c++) {
          pooled[i * channels + c] +=
              x.getAtIndex(ValueLayout.JAVA_FLOAT, ((long) i * locations + p) * channels + c);
        }
      }
      for (int c = 0; c < channels; c++) {
        pooled[i * channels + c] /= locations;
      }
      for (int k = 0; k < d.oc(); k++) {
        float sum = b.getAtIndex(ValueLayout.JAVA_FLOAT, k);
        for (int c = 0; c < channels; c++) {
          sum +=
              pooled[i * channels + c]
                  * w.getAtIndex(ValueLayout.JAVA_FLOAT, (long) k * channels + c);
        }
        logits[i * d.oc() + k] = sum;
      }
    }
  }

  private float loss() {
    int classes = workload.network().classes();
    int n = workload.batch();
    double total = 0;
    for (int i = 0; i < n; i++) {
      double max = Double.NEGATIVE_INFINITY;
      for (int k = 0; k < classes; k++) {
        max = Math.max(max, logits[i * classes + k]);
      }
      double sum = 0;
      for (int k = 0; k < classes; k++) {
        sum += Math.exp(logits[i * classes + k] - max);
      }
      for (int k = 0; k < classes; k++) {
        double target =
            Workload.LABEL_SMOOTHING / classes
                + (workload.labels()[i] == k ? 1 - Workload.LABEL_SMOOTHING : 0);
        double log = logits[i * classes + k] - max - Math.log(sum);
        total -= target * log / n;
        diffLogits[i * classes + k] = (float) ((Math.exp(log) - target) / n);
      }
    }
    return (float) total;
  }

  @Override
  public float step() {
    float loss = pass();
    int count = layers.size();
    for (int i = 0; i < count; i++) {
      update(weights[i], diffWeights[i], velocity[i]);
      update(biases[i], diffBiases[i], velocity[count + i]);
    }
    return loss;
  }

  private static void update(memory values, memory gradient, float[] velocity) {
    MemorySegment w = segment(values);
    MemorySegment g = segment(gradient);
    for (int i = 0; i < velocity.length; i++) {
      velocity[i] =
          Workload.MOMENTUM * velocity[i] + g.getAtIndex(ValueLayout.JAVA_FLOAT_UNALIGNED, i);
      w.setAtIndex(
          ValueLayout.JAVA_FLOAT_UNALIGNED,
          i,
          w.getAtIndex(ValueLayout.JAVA_FLOAT_UNALIGNED, i) - Workload.LEARNING_RATE * velocity[i]);
    }
  }

  @Override
  public float[] forward() {
    logits();
    return logits.clone();
  }

  @Override
  public Gradients gradients() {
    float loss = pass();
    float[] values = new float[workload.parameters().length];
    List<ParameterSpec> specs = workload.network().parameters();
    int count = layers.size();
    for (int p = 0; p < 2 * count; p++) {
      MemorySegment.copy(
          segment(p < count ? diffWeights[p] : diffBiases[p - count]),
          ValueLayout.JAVA_FLOAT,
          0,
          values,
          Math.toIntExact(specs.get(p).offset()),
          Math.toIntExact(specs.get(p).shape().elements()));
    }
    return new Gradients(loss, values);
  }

  /** Two outputs per layer: before and after the scale. */
  @Override
  public long activationBytes() {
    long bytes = 0;
    for (ConvolutionLayer layer : layers) {
      bytes += 2L * Float.BYTES * workload.batch() * layer.extent().elements();
    }
    return bytes;
  }

  /** JavaCPP's deallocators release the native objects with the process. */
  @Override
  public void close() {
    queue._wait();
  }
}
