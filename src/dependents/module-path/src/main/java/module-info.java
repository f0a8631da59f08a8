/** A user's module. */
module dependent {
  requires io.jtrelu;
  requires io.jtrelu.shaping;
}
