# Reads PTX; prints name, family and bytes of the parameter block of each entry point.
FNR == 1 {
  family = FILENAME
  sub(/.*\//, "", family)
  sub(/\.ptx$/, "", family)
}
/\.entry / {
  kernel = $0
  sub(/.*\.entry /, "", kernel)
  sub(/\(.*/, "", kernel)
}
/^[ \t]*\.param .*_param_0\[[0-9]+\]/ && kernel != "" {
  bytes = $0
  sub(/.*_param_0\[/, "", bytes)
  sub(/\].*/, "", bytes)
  print kernel, family, bytes
  kernel = ""
}
