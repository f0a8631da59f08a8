package io.jtrelu.dl4j.layer;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.nn.Initializer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Parameters;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.deeplearning4j.nn.api.ParamInitializer;
import org.deeplearning4j.nn.conf.NeuralNetConfiguration;
import org.deeplearning4j.nn.conf.layers.Layer;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.factory.Nd4j;
import org.nd4j.linalg.indexing.NDArrayIndex;

/**
 * The parameters of a {@link JtreluLayer} in Deeplearning4j's flat array: those of {@link
 * Network#parameters} in that order, without gaps.
 */
final class NetworkParameters implements ParamInitializer {
  static final NetworkParameters INSTANCE = new NetworkParameters();

  private NetworkParameters() {}

  /**
   * Names of the parameters: those of the network, without '_', where Deeplearning4j cuts names.
   *
   * @throws IllegalArgumentException if two become one
   */
  static List<String> keys(Network network) {
    Set<String> keys = new LinkedHashSet<>();
    for (ParameterSpec spec : network.parameters()) {
      String key = spec.name().replace('_', '-');
      if (!keys.add(key)) {
        throw new IllegalArgumentException(
            "network "
                + network
                + ": two layers' parameters would both be called "
                + key
                + " in Deeplearning4j, which allows no '_' in their names; rename one layer");
      }
    }
    return List.copyOf(keys);
  }

  private static Network network(Layer layer) {
    return ((JtreluLayer) layer).network();
  }

  private static List<String> keys(Layer layer, ParameterSpec.Kind kind) {
    Network network = network(layer);
    List<String> all = keys(network);
    List<String> keys = new ArrayList<>();
    for (int p = 0; p < all.size(); p++) {
      if (network.parameters().get(p).kind() == kind) {
        keys.add(all.get(p));
      }
    }
    return keys;
  }

  @Override
  public long numParams(NeuralNetConfiguration conf) {
    return numParams(conf.getLayer());
  }

  @Override
  public long numParams(Layer layer) {
    return network(layer).parameterCount();
  }

  @Override
  public List<String> paramKeys(Layer layer) {
    return keys(network(layer));
  }

  @Override
  public List<String> weightKeys(Layer layer) {
    return keys(layer, ParameterSpec.Kind.WEIGHTS);
  }

  @Override
  public List<String> biasKeys(Layer layer) {
    return keys(layer, ParameterSpec.Kind.BIAS);
  }

  @Override
  public boolean isWeightParam(Layer layer, String key) {
    return weightKeys(layer).contains(key);
  }

  @Override
  public boolean isBiasParam(Layer layer, String key) {
    return biasKeys(layer).contains(key);
  }

  @Override
  public Map<String, INDArray> init(
      NeuralNetConfiguration conf, INDArray paramsView, boolean initializeParams) {
    JtreluLayer layer = (JtreluLayer) conf.getLayer();
    Map<String, INDArray> views = views(layer.network(), paramsView);
    views.keySet().forEach(conf::addVariable);
    if (initializeParams && !views.isEmpty()) {
      try (Backend backend = Backends.open(layer.device());
          Parameters initial = Parameters.allocate(layer.network(), backend)) {
        // Drawn from ND4J's generator, which the network's seed sets, as other layers' weights are.
        Initializer.delta(Nd4j.getRandom().nextLong()).fill(backend, initial);
        int p = 0;
        for (INDArray view : views.values()) {
          float[] values = initial.view(p++).toFloatArray();
          view.assign(Nd4j.createFromArray(values).reshape('c', view.shape()));
        }
      }
    }
    return views;
  }

  @Override
  public Map<String, INDArray> getGradientsFromFlattened(
      NeuralNetConfiguration conf, INDArray gradientView) {
    return views(network(conf.getLayer()), gradientView);
  }

  private static Map<String, INDArray> views(Network network, INDArray flat) {
    INDArray row = flat.reshape(flat.length());
    List<String> keys = keys(network);
    Map<String, INDArray> views = new LinkedHashMap<>();
    long offset = 0;
    for (int p = 0; p < keys.size(); p++) {
      ParameterSpec spec = network.parameters().get(p);
      long end = offset + spec.shape().elements();
      long[] shape = Arrays.stream(spec.shape().dims()).asLongStream().toArray();
      views.put(keys.get(p), row.get(NDArrayIndex.interval(offset, end)).reshape('c', shape));
      offset = end;
    }
    return views;
  }
}
