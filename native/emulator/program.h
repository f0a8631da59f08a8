// A kernel after lowering: compact operations over register slots, ready to execute.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "ptx_ast.h"

namespace emu {

struct Warp;
struct Op;

/// Executes one operation for the lanes in `lanes`. `o` holds the operation's operands (register slots, see Warp::reg).
using Handler = void (*)(Warp& w, const Op& op, const int32_t* o, uint32_t lanes);

/// How an operation moves the program counter.
enum class Flow : uint8_t {
  Next,  // falls through
  Branch,  // to `target` for the executing lanes
  Indexed,  // through a branch table
  Exit,  // the executing lanes end
  Barrier,  // block barrier: the warp waits
  Converge,  // needs all lanes named by the member mask (operand maskOperand) here before it runs; may wait as Wait does
  Wait,  // the executing lanes may have to wait (Warp::blocked), and then run it again
};

/// Counter classes.
enum class OpClass : uint8_t {
  Integer,
  Logic,
  Compare,
  Move,
  Convert,
  Float32,
  Fma32,
  Float64,
  Half,
  Special,
  LoadGlobal,
  StoreGlobal,
  LoadShared,
  StoreShared,
  LoadLocal,
  StoreLocal,
  LoadConst,
  LoadParam,
  Atomic,
  AsyncCopy,
  LoadMatrix,
  Matrix,
  WarpSync,
  Barrier,
  Fence,
  Branch,
  Other,
  Count
};
extern const char* const opClassNames[];

struct Op {
  Handler run = nullptr;
  int64_t immediate = 0;  // address offset, branch table index, ...
  uint32_t first = 0;  // first operand in Program::operands
  int32_t target = 0;  // branch target
  uint32_t aux = 0;  // meaning belongs to the handler
  uint16_t guard = 0;  // predicate index << 1 | negated; 0: unconditional
  Flow flow = Flow::Next;
  OpClass klass = OpClass::Other;
  uint8_t operandCount = 0;
  uint8_t maskOperand = 0;
};

/// What is known about an operation besides how to run it; read for reports only.
struct OpOrigin {
  int line = 0;
  SourceLine source;
  const std::string* text = nullptr;
};

/// A special register that the kernel reads, and the slot it is kept in.
struct SpecialSlot {
  int id;
  int32_t slot;
};
enum Special : int {
  TidX,
  TidY,
  TidZ,
  NtidX,
  NtidY,
  NtidZ,
  CtaidX,
  CtaidY,
  CtaidZ,
  NctaidX,
  NctaidY,
  NctaidZ,
  LaneId,
  WarpId,
  NWarpId,
  SmId,
  NSmId,
  GridId,
  LaneMaskEq,
  LaneMaskLe,
  LaneMaskLt,
  LaneMaskGe,
  LaneMaskGt,
  DynamicSharedSize,
  TotalSharedSize,
  ClusterIdX,
  ClusterIdY,
  ClusterIdZ,
  NClusterIdX,
  NClusterIdY,
  NClusterIdZ,
  ClusterCtaIdX,
  ClusterCtaIdY,
  ClusterCtaIdZ,
  ClusterNCtaIdX,
  ClusterNCtaIdY,
  ClusterNCtaIdZ,
  ClusterCtaRank,
  ClusterNCtaRank,
  IsExplicitCluster,
  Clock,
  Clock64,
  ClockHi,
  GlobalTimer,
  SpecialCount
};

struct Parameter {
  int offset, size, alignment;
};

struct Program {
  uint64_t id = nextId();  // unlike that of every other
  std::string name;
  std::unordered_map<int, std::string> files;
  std::vector<Op> code;
  std::vector<OpOrigin> origins;
  std::vector<int32_t> operands;
  std::vector<std::vector<int32_t>> branchTables;
  std::vector<uint8_t> constants;  // 32-lane broadcast immediates
  std::vector<SpecialSlot> specials;
  int32_t registerBytes = 0;  // per warp
  int predicateCount = 1;  // predicate 0 is always true
  int trackedCount = 0;  // registers that may be read before they are written
  int staticShared = 0, localBytes = 0, parameterBytes = 0;
  bool usesDynamicShared = false, usesAsyncProxy = false, usesCluster = false;
  int accumulatorCount = 0;  // registers that wgmma uses, and those their values are moved through
  std::vector<std::vector<int32_t>> matrixOperands;  // by wgmma: which of them it uses, accumulators first
  int estimatedRegisters = 0;  // peak of live 32-bit registers, for attributes and occupancy
  std::vector<Parameter> parameters;
  int maxThreads[3] = {0, 0, 0}, requiredThreads[3] = {0, 0, 0};
  int maxRegisters = 0, minBlocks = 0;
  /// Registers that .maxnreg, or .maxntid and .minnctapersm, leave a thread; 0 where none of them says.
  int registerBound() const {
    int threads = maxThreads[0] ? maxThreads[0] * maxThreads[1] * maxThreads[2]
                                : requiredThreads[0] * requiredThreads[1] * requiredThreads[2];
    if (maxRegisters || !threads) return maxRegisters;
    return std::min(255, 65536 / ((threads + 127) / 128 * 128 * std::max(1, minBlocks))) / 8 * 8;
  }
  /// What a compiler would take: spilling, where the bound is less than what is alive at once.
  int registers() const {
    int bound = registerBound();
    return bound ? std::min(bound, estimatedRegisters) : estimatedRegisters;
  }
  int cluster[3] = {0, 0, 0}, maxClusterRank = 0;  // what the kernel was compiled for; 0: anything
  bool explicitCluster = false;  // a launch has to say, if the kernel does not
  std::vector<std::shared_ptr<std::string>> texts;  // of instructions; origins point into them

 private:
  static uint64_t nextId() {
    static std::atomic<uint64_t> last{0};
    return ++last;
  }
};

/// Addresses of a module's variables, decided before its kernels are lowered.
struct ModuleSymbols {
  struct Place {
    std::string space;
    uint64_t address = 0;
    int64_t bytes = 0;
    const Variable* variable = nullptr;
  };
  std::unordered_map<std::string, Place> places;
};

/// Lowers one kernel; device functions it calls are expanded in place. Throws PtxError.
std::unique_ptr<Program> lower(const ModuleAst& ast, const ModuleSymbols& symbols, const Function& kernel);

}  // namespace emu
