package io.jtrelu.backend.cuda;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import io.jtrelu.backend.BackendUnavailableException;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodType;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Functions of a C library that return a status, through the JDK's foreign-function interface. A
 * function is bound when it is first called, by the types of its arguments: int, long (also handles
 * and device addresses) and memory segments. Thread-safe.
 */
final class ForeignLibrary {
  private final SymbolLookup symbols;
  private final String nameOfStatus;
  private final Map<String, MethodHandle> functions = new ConcurrentHashMap<>();

  /**
   * @param nameOfStatus the library's function that gives a status's name
   */
  ForeignLibrary(SymbolLookup symbols, String nameOfStatus) {
    this.symbols = symbols;
    this.nameOfStatus = nameOfStatus;
  }

  /**
   * Calls a function and throws unless it returns 0.
   *
   * @param sizes what it works on, for the message
   */
  void call(String name, Object sizes, Object... arguments) {
    int status;
    try {
      MethodHandle function =
          functions.computeIfAbsent(name, unbound -> bind(unbound, JAVA_INT, arguments));
      status = (int) (Object) function.invokeExact(arguments);
    } catch (RuntimeException | Error failure) {
      throw failure;
    } catch (Throwable impossible) {
      throw new AssertionError(impossible); // C throws nothing
    }
    if (status != 0) {
      throw CudaException.ofLibrary(status, nameOf(status), name, sizes);
    }
  }

  private MethodHandle bind(String name, MemoryLayout result, Object... arguments) {
    MemorySegment function =
        symbols
            .find(name)
            .orElseThrow(
                () -> new BackendUnavailableException("the library has no function " + name));
    MemoryLayout[] layouts = new MemoryLayout[arguments.length];
    for (int i = 0; i < layouts.length; i++) {
      layouts[i] =
          switch (arguments[i]) {
            case Integer number -> JAVA_INT;
            case Long number -> JAVA_LONG;
            default -> ADDRESS;
          };
    }
    MethodHandle handle =
        Linker.nativeLinker().downcallHandle(function, FunctionDescriptor.of(result, layouts));
    return handle
        .asType(MethodType.genericMethodType(arguments.length))
        .asSpreader(Object[].class, arguments.length);
  }

  private String nameOf(int status) {
    try {
      MethodHandle function =
          functions.computeIfAbsent(nameOfStatus, unbound -> bind(unbound, ADDRESS, status));
      Object text = (Object) function.invokeExact(new Object[] {status});
      return ((MemorySegment) text).reinterpret(Long.MAX_VALUE).getString(0);
    } catch (Throwable nameless) {
      return "status " + status;
    }
  }
}
