package io.jtrelu.shaping;

/**
 * Expectations of a transformed activation over z ~ N(0, 1) that shaping controls.
 *
 * @param q Q(1) = E[phi^2]
 * @param qSlope Q'(1) = E[phi phi' z]
 * @param c0 C(0) = E[phi]^2 / Q(1)
 * @param cSlope C'(1) = E[phi'^2] / Q(1)
 * @param cCurvature C''(1) = E[phi''^2] / Q(1); infinite if phi' jumps
 * @param fourth E[phi^4] / Q(1)^2, which sets the fluctuation of q at finite width
 */
public record Moments(
    double q, double qSlope, double c0, double cSlope, double cCurvature, double fourth) {}
