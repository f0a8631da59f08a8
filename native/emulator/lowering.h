// Between lowering and register allocation: operations whose operands are still virtual registers.
#pragma once
#include <cstdint>
#include <vector>

#include "program.h"

namespace emu {

/// One operand of an operation before slots are assigned.
struct Ref {
  enum Role : uint8_t { None = 0, Def = 1, Use = 2 };
  int id = 0;  // virtual register, predicate, or place of a constant
  uint8_t role = None;
  bool predicate = false, negated = false, constant = false;
  bool lenient = false;  // may be read before it is written: the instruction looks itself
};

struct VirtualCode {
  std::vector<Ref> refs;  // Op::first counts in here
  std::vector<Ref> guards;  // by operation
  std::vector<uint8_t> widths;  // by virtual register, in bytes
  int predicates = 1;
  std::vector<std::pair<int, int>> specials;  // special register, virtual register
};

/// Finds registers that may be read before they are written and adds checks for them, then assigns slots by liveness.
void finishProgram(Program& p, VirtualCode& code);

}  // namespace emu
