package io.jtrelu.backend;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;

/** A backend that claims another number of lanes. */
public final class WithLanes {
  private WithLanes() {}

  /** A view of a backend; closing it closes the backend. */
  public static Backend of(Backend backend, int lanes) {
    return (Backend)
        Proxy.newProxyInstance(
            WithLanes.class.getClassLoader(),
            new Class<?>[] {Backend.class},
            (proxy, method, arguments) -> {
              if (method.getName().equals("lanes")) {
                return lanes;
              }
              try {
                return method.invoke(backend, arguments);
              } catch (InvocationTargetException failure) {
                throw failure.getCause();
              }
            });
  }
}
