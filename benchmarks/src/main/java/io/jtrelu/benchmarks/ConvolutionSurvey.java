package io.jtrelu.benchmarks;

import io.jtrelu.backend.Conv2dDescriptor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.bytedeco.dnnl.IntMemoryMap;
import org.bytedeco.dnnl.convolution_backward_data;
import org.bytedeco.dnnl.convolution_backward_weights;
import org.bytedeco.dnnl.convolution_forward;
import org.bytedeco.dnnl.engine;
import org.bytedeco.dnnl.global.dnnl;
import org.bytedeco.dnnl.memory;
import org.bytedeco.dnnl.primitive;
import org.bytedeco.dnnl.stream;
import org.bytedeco.javacpp.Loader;

/**
 * oneDNN's bare convolutions on one core as shares of sgemm's rate on one core, taken in turn with
 * it, by the CPU time of the thread: which format and micro-batch its kernels like best. The data
 * of a call are warm; in a network they may not be.
 *
 * <p>Arguments: shapes as {@code plain50/body-32}, then micro-batches.
 */
public final class ConvolutionSurvey {
  private static final int ROUNDS = 9;

  private final engine cpu = new engine(engine.kind.cpu, 0);
  private final stream queue = new stream(cpu);
  private final SgemmPeak sgemm = new SgemmPeak();

  private ConvolutionSurvey() {
    sgemm.contender = "sgemm-1";
    sgemm.open();
  }

  /** Runs and prints a line per shape, micro-batch and format. */
  public static void main(String[] args) {
    Loader.load(dnnl.class);
    ConvolutionSurvey survey = new ConvolutionSurvey();
    System.out.println("shape, micro-batch, format: forward, backward data, backward weights");
    for (String shape : args) {
      for (String batch : args) {
        if (shape.contains("/") && !batch.contains("/")) {
          Conv2dDescriptor d = Shapes.read(shape).withBatch(Integer.parseInt(batch));
          for (memory.format_tag format :
              List.of(memory.format_tag.nhwc, memory.format_tag.nChw16c, memory.format_tag.any)) {
            survey.print(shape, d, format);
          }
        }
      }
    }
    System.exit(0);
  }

  private void print(String shape, Conv2dDescriptor d, memory.format_tag format) {
    StringBuilder line = new StringBuilder();
    line.append(String.format(Locale.ROOT, "%-18s %3d %-8s", shape, d.n(), format.name()));
    try {
      for (Call call : calls(d, format)) {
        line.append(
            String.format(
                Locale.ROOT, " %4.0f%% %-28s", 100 * share(d, call), call.implementation()));
      }
    } catch (RuntimeException unsupported) {
      line.append(" not offered");
    }
    System.out.println(line);
  }

  private record Call(primitive operation, IntMemoryMap arguments, String implementation) {}

  private static memory.desc desc(memory.format_tag format, long... dims) {
    return new memory.desc(dims, memory.data_type.f32, format);
  }

  private memory filled(memory.desc desc) {
    memory result = new memory(desc, cpu);
    MemorySegment values =
        MemorySegment.ofAddress(result.get_data_handle().address()).reinterpret(desc.get_size());
    for (long i = 0; i < desc.get_size() / 4; i++) {
      values.setAtIndex(ValueLayout.JAVA_FLOAT, i, (i % 17) * 0.1f - 0.8f);
    }
    return result;
  }

  private List<Call> calls(Conv2dDescriptor d, memory.format_tag format) {
    memory.format_tag any = memory.format_tag.any;
    memory.desc src = desc(format, d.n(), d.ic(), d.h(), d.w());
    memory.desc dst = desc(format, d.n(), d.oc(), d.oh(), d.ow());
    memory.desc weights = desc(any, d.oc(), d.ic(), d.kh(), d.kw());
    memory.desc bias = desc(memory.format_tag.x, d.oc());
    long[] strides = {d.strideH(), d.strideW()};
    long[] begin = {d.padTop(), d.padLeft()};
    long[] end = {d.padBottom(), d.padRight()};
    var forward =
        new convolution_forward.primitive_desc(
            cpu,
            dnnl.prop_kind.forward_training,
            dnnl.algorithm.convolution_direct,
            src,
            weights,
            bias,
            dst,
            strides,
            begin,
            end);
    var data =
        new convolution_backward_data.primitive_desc(
            cpu,
            dnnl.algorithm.convolution_direct,
            src,
            weights,
            dst,
            strides,
            begin,
            end,
            forward);
    var byWeights =
        new convolution_backward_weights.primitive_desc(
            cpu,
            dnnl.algorithm.convolution_direct,
            src,
            weights,
            bias,
            dst,
            strides,
            begin,
            end,
            forward);
    List<Call> calls = new ArrayList<>();
    IntMemoryMap arguments = new IntMemoryMap();
    arguments.put(dnnl.DNNL_ARG_SRC, filled(forward.src_desc()));
    arguments.put(dnnl.DNNL_ARG_WEIGHTS, filled(forward.weights_desc()));
    arguments.put(dnnl.DNNL_ARG_BIAS, filled(bias));
    arguments.put(dnnl.DNNL_ARG_DST, filled(forward.dst_desc()));
    calls.add(
        new Call(new convolution_forward(forward), arguments, forward.impl_info_str().getString()));
    arguments = new IntMemoryMap();
    arguments.put(dnnl.DNNL_ARG_DIFF_DST, filled(data.diff_dst_desc()));
    arguments.put(dnnl.DNNL_ARG_WEIGHTS, filled(data.weights_desc()));
    arguments.put(dnnl.DNNL_ARG_DIFF_SRC, filled(data.diff_src_desc()));
    calls.add(
        new Call(new convolution_backward_data(data), arguments, data.impl_info_str().getString()));
    arguments = new IntMemoryMap();
    arguments.put(dnnl.DNNL_ARG_SRC, filled(byWeights.src_desc()));
    arguments.put(dnnl.DNNL_ARG_DIFF_DST, filled(byWeights.diff_dst_desc()));
    arguments.put(dnnl.DNNL_ARG_DIFF_WEIGHTS, filled(byWeights.diff_weights_desc()));
    arguments.put(dnnl.DNNL_ARG_DIFF_BIAS, filled(bias));
    calls.add(
        new Call(
            new convolution_backward_weights(byWeights),
            arguments,
            byWeights.impl_info_str().getString()));
    return calls;
  }

  /** Median over rounds of the call's rate over sgemm's. */
  private double share(Conv2dDescriptor d, Call call) {
    int repeats = (int) Math.max(1, 1e9 / d.multiplyAdds());
    double[] shares = new double[ROUNDS];
    for (int round = -2; round < ROUNDS; round++) {
      double product = time(sgemm::multiply);
      double convolution =
          time(
                  () -> {
                    for (int i = 0; i < repeats; i++) {
                      call.operation.execute(queue, call.arguments);
                    }
                    queue._wait();
                  })
              / repeats;
      if (round >= 0) {
        shares[round] = d.multiplyAdds() / convolution / (Math.pow(SgemmPeak.SIZE, 3) / product);
      }
    }
    return Campaign.median(shares);
  }

  private static double time(Runnable work) {
    var threads = ManagementFactory.getThreadMXBean();
    long begin = threads.getCurrentThreadCpuTime();
    work.run();
    return threads.getCurrentThreadCpuTime() - begin;
  }
}
