package io.jtrelu.backend.onednn;

import org.bytedeco.dnnl.global.dnnl;

/** A oneDNN function returned something other than success. */
final class DnnlException extends RuntimeException {
  private static final long serialVersionUID = 1;

  private final int status;

  DnnlException(String function, int status) {
    super(function + " failed: " + describe(status));
    this.status = status;
  }

  /** Whether oneDNN has no code for what was asked, as opposed to a failure. */
  boolean isUnimplemented() {
    return status == dnnl.dnnl_unimplemented;
  }

  private static String describe(int status) {
    return switch (status) {
      case dnnl.dnnl_out_of_memory -> "out of memory";
      case dnnl.dnnl_invalid_arguments -> "invalid arguments";
      case dnnl.dnnl_unimplemented -> "not implemented for these sizes and types";
      case dnnl.dnnl_runtime_error -> "runtime error";
      default -> "status " + status;
    };
  }
}
