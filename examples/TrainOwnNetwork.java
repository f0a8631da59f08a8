import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.Split;
import io.jtrelu.nn.Network;
import io.jtrelu.shaping.Tat;
import io.jtrelu.train.EarlyStopping;
import io.jtrelu.train.Model;
import io.jtrelu.train.Trainer;
import io.jtrelu.train.TrainingConfig;
import java.nio.file.Path;
import java.util.List;
import java.util.Random;

/** Trains a network of one's own, 30 layers deep, on images that are arrays. */
public final class TrainOwnNetwork {
  public static void main(String[] arguments) throws Exception {
    ImageDataset train = bars(480, Split.TRAIN, 1);
    Datasets data = new Datasets(train, bars(120, Split.TEST, 2), List.of());

    Network.Builder b = Network.builder("mine", 12, 12, 2); // one channel, and the homogeneous one
    int x = b.input();
    for (int i = 0; i < 30; i++) {
      x = b.activation("act" + i, b.convolution("conv" + i, x, 16, 3, i == 10 ? 2 : 1));
    }
    b.linear("logits", b.globalMeanPool("pool", x), train.classes().size());
    Network network = b.build().shape(Tat.eta(0.9));

    TrainingConfig config = TrainingConfig.builder().epochs(5).batch(16).learningRate(0.02).build();
    Path folder = Path.of(arguments.length == 0 ? "runs/mine" : arguments[0]);
    try (Backend backend = Backends.open("auto");
        Trainer trainer = Trainer.start(Model.of(network, train), config, data, backend, folder)) {
      trainer.add(new EarlyStopping(3));
      trainer.train();
      System.out.printf("test accuracy %.1f %%, in %s%n", 100 * trainer.bestAccuracy(), folder);
    }
  }

  /** Images with a bright bar at the top, in the middle or at the bottom. */
  private static ImageDataset bars(int count, Split split, long seed) {
    Random random = new Random(seed);
    byte[][] images = new byte[count][12 * 12];
    int[] labels = new int[count];
    for (int i = 0; i < count; i++) {
      labels[i] = i % 3;
      for (int p = 0; p < images[i].length; p++) {
        int bright = p / 48 == labels[i] ? 120 : 0;
        images[i][p] = (byte) (bright + random.nextInt(100));
      }
    }
    List<String> classes = List.of("top", "middle", "bottom");
    return ImageDataset.of("bars", split, 12, 12, 1, classes, images, labels);
  }
}
