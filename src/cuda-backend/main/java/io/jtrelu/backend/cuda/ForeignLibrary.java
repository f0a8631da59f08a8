package io.jtrelu.backend.cuda;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
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
 * and device addresses), memory segments and structs. Thread-safe.
 */
final class ForeignLibrary {
  /** A struct of bytes that is passed by value. */
  record Struct(MemorySegment bytes) {}

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
      status = (int) (Object) function.invokeExact(values(arguments));
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
            case Struct struct ->
                MemoryLayout.structLayout(
                    MemoryLayout.sequenceLayout(struct.bytes().byteSize(), JAVA_BYTE));
            default -> ADDRESS;
          };
    }
    MethodHandle handle =
        Linker.nativeLinker().downcallHandle(function, FunctionDescriptor.of(result, layouts));
    return handle
        .asType(MethodType.genericMethodType(arguments.length))
        .asSpreader(Object[].class, arguments.length);
  }

  private static Object[] values(Object... arguments) {
    Object[] values = arguments.clone();
    for (int i = 0; i < values.length; i++) {
      if (values[i] instanceof Struct struct) {
        values[i] = struct.bytes();
      }
    }
    return values;
  }

  /** The name of a status. */
  String nameOf(int status) {
    String name = text(nameOfStatus, status);
    return name.isEmpty() ? "status " + status : name;
  }

  /** What a function says that returns a text; empty where it does not, or is not there. */
  String text(String name, Object... arguments) {
    try {
      MethodHandle function =
          functions.computeIfAbsent(name, unbound -> bind(unbound, ADDRESS, arguments));
      Object text = (Object) function.invokeExact(arguments);
      return ((MemorySegment) text).reinterpret(Long.MAX_VALUE).getString(0);
    } catch (Throwable silent) {
      return "";
    }
  }
}
