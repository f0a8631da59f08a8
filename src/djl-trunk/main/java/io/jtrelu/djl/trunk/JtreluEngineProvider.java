package io.jtrelu.djl.trunk;

import ai.djl.engine.Engine;
import ai.djl.engine.EngineProvider;

/** Makes {@link JtreluEngine} known to DJL, as a service. */
public final class JtreluEngineProvider implements EngineProvider {
  private final JtreluEngine engine = new JtreluEngine();

  /** For {@link java.util.ServiceLoader}. */
  public JtreluEngineProvider() {}

  @Override
  public String getEngineName() {
    return JtreluEngine.NAME;
  }

  @Override
  public int getEngineRank() {
    return JtreluEngine.RANK;
  }

  @Override
  public Engine getEngine() {
    return engine;
  }
}
