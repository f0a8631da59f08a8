package io.jtrelu.djl.trunk;

import ai.djl.engine.Engine;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDArrayAdapter;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.DataType;
import ai.djl.ndarray.types.Shape;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.jspecify.annotations.Nullable;

/** Values in a buffer; what there is to compute is computed by an array of another engine. */
final class JtreluArray extends NDArrayAdapter {
  private ByteBuffer values;

  JtreluArray(
      NDManager manager,
      @Nullable NDManager alternative,
      ByteBuffer values,
      Shape shape,
      DataType dataType) {
    super(manager, alternative, shape, dataType, NDManager.nextUid());
    this.values = values;
    manager.attachInternal(uid, this);
  }

  @Override
  public ByteBuffer toByteBuffer(boolean tryDirect) {
    if (isClosed) {
      throw new IllegalStateException("this array is closed");
    }
    ByteBuffer all = values.duplicate().order(ByteOrder.nativeOrder());
    all.rewind();
    return all;
  }

  @Override
  public void intern(NDArray replaced) {
    values = ((JtreluArray) replaced).values;
    replaced.close();
  }

  @Override
  public void detach() {
    manager.detachInternal(getUid());
    manager = ((JtreluEngine) Engine.getEngine(JtreluEngine.NAME)).root();
  }
}
