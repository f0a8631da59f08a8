# Reads ptxas -v logs; prints a table of what each kernel takes and fails on spills and local memory
# that local-memory.txt does not list (kernel, then the reason).
BEGIN {
  printf "%-48s %-8s %9s %7s %7s %7s\n", "kernel", "arch", "registers", "shared", "stack", "spills"
}
FILENAME ~ /local-memory.txt$/ {
  if ($0 !~ /^#/ && NF == 1) {
    printf "cuda: local-memory.txt lists %s without a reason\n", $1 > "/dev/stderr"
    failed = 1
  }
  if ($0 !~ /^#/ && NF > 1) allowed[$1] = 1
  next
}
/Compiling entry function/ {
  split($0, quoted, "'")
  kernel = quoted[2]
  arch = quoted[4]
}
/wgmma.*serializ|setmaxnreg.*ignored/ {
  printf "cuda: %s\n", $0 > "/dev/stderr"
  failed = 1
}
/bytes stack frame/ {
  for (i = 2; i <= NF; ++i) {
    if ($i == "bytes" && $(i + 1) == "stack") stack = $(i - 1)
    if ($i == "bytes" && $(i + 1) == "spill") spills[$(i + 2)] = $(i - 1)
  }
}
/Used [0-9]+ registers/ {
  shared = 0
  for (i = 2; i <= NF; ++i) {
    if ($i ~ /^registers/) registers = $(i - 1)
    if ($i == "bytes" && $(i + 1) ~ /^smem/) shared = $(i - 1)
  }
  spilled = spills["stores"] + spills["loads,"] + spills["loads"] + spills["stores,"]
  delete spills
  printf "%-48s %-8s %9d %7d %7d %7d\n", kernel, arch, registers, shared, stack, spilled
  if ((stack > 0 || spilled > 0) && !(kernel in allowed)) {
    printf "cuda: %s (%s) uses %d bytes of local memory, %d of them spilled registers; give it fewer live values, or list it in cuda/local-memory.txt with the reason\n", kernel, arch, stack, spilled > "/dev/stderr"
    failed = 1
  }
}
END { exit failed }
