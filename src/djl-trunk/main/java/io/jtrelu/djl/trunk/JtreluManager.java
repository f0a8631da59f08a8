package io.jtrelu.djl.trunk;

import ai.djl.Device;
import ai.djl.engine.Engine;
import ai.djl.ndarray.BaseNDManager;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.DataType;
import ai.djl.ndarray.types.Shape;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.jspecify.annotations.Nullable;

/** Makes arrays that hold values, see {@link JtreluArray}. */
class JtreluManager extends BaseNDManager {

  private JtreluManager(@Nullable NDManager parent, @Nullable Device device) {
    super(parent, device);
  }

  @Override
  public ByteBuffer allocateDirect(int capacity) {
    return ByteBuffer.allocateDirect(capacity).order(ByteOrder.nativeOrder());
  }

  @Override
  public @Nullable NDArray from(@Nullable NDArray array) {
    if (array == null || array instanceof JtreluArray) {
      return array;
    }
    NDArray copy = create(array.toByteBuffer(), array.getShape(), array.getDataType());
    copy.setName(array.getName());
    return copy;
  }

  @Override
  public JtreluArray create(Buffer data, Shape shape, DataType dataType) {
    if (dataType == DataType.STRING) {
      throw new UnsupportedOperationException(
          "the engine " + JtreluEngine.NAME + " has arrays of numbers, not of texts");
    }
    int count = Math.toIntExact(shape.size());
    validateBuffer(data, dataType, count);
    ByteBuffer values = allocateDirect(Math.multiplyExact(count, dataType.getNumOfBytes()));
    copyBuffer(data, values);
    return new JtreluArray(this, alternativeManager, values, shape, dataType);
  }

  @Override
  public JtreluManager newSubManager(@Nullable Device device) {
    JtreluManager manager = new JtreluManager(this, device);
    attachUncappedInternal(manager.uid, manager);
    return manager;
  }

  @Override
  public final Engine getEngine() {
    return Engine.getEngine(JtreluEngine.NAME);
  }

  @Override
  public void close() {
    super.close();
    if (alternativeManager != null) {
      alternativeManager.close();
      alternativeManager = null;
    }
  }

  /** The manager of all others, which lives as long as the process. */
  static final class Root extends JtreluManager implements NDManager.SystemNDManager {
    Root() {
      super(null, null);
    }

    @Override
    public void close() {}
  }
}
