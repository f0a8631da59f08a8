// Handlers by instruction: what lowering asks for. Each returns null for a combination that is not supported.
#pragma once
#include <string>

#include "program.h"

namespace emu {

enum class Rounding : uint8_t { Nearest, Zero, Down, Up };

struct Variant {
  Rounding rounding = Rounding::Nearest;
  bool sat = false, ftz = false, nan = false, relu = false, hi = false, wide = false;
};

/// d = op(a), op(a,b), op(a,b,c) for arithmetic, logic, shifts and the like; operands d, a, b, c.
Handler arithmeticHandler(const std::string& op, Type type, const Variant& v, int sources);
/// Carry forms: operands d, a, b[, c], carry predicate. aux: 1 reads the carry, 2 writes it.
Handler carryHandler(const std::string& op, Type type, bool hi);
/// setp: operands p, q, a, b, c. aux: 0 none, 1 and, 2 or, 3 xor.
Handler compareHandler(const std::string& comparison, Type type, bool ftz);
/// set: operands d, a, b, c; aux as setp, plus 16 for a floating result.
Handler setHandler(const std::string& comparison, Type type, bool ftz, Type result);
Handler selectHandler(int width);  // d, a, b, p
Handler slctHandler(int width, Type selector);  // d, a, b, c
Handler moveHandler(int width);  // d, a
Handler resizeHandler(int to, int from, bool sign);
Handler packHandler(int whole, int part);  // d, parts...
Handler unpackHandler(int whole, int part);  // parts..., a
Handler lop3Handler();  // d, a, b, c; immediate: table
Handler prmtHandler(const std::string& mode);  // d, a, b, c
Handler funnelHandler(bool left, bool wrap);  // d, a, b, c
Handler bitFieldInsertHandler(Type type);  // d, a, b, pos, len
Handler dotHandler(const std::string& op, bool signedA, bool signedB, bool hi);
/// cvt; aux bits: 0-1 rounding, 2 round to an integral value, 3 sat, 4 ftz, 5 relu, 6 satfinite
Handler convertHandler(Type to, Type from);
Handler convertPairHandler(Type to);  // cvt.rn.f16x2.f32 d, a, b
Handler predicateLogicHandler(const std::string& op);  // p, a, b

enum Space : uint32_t { Generic, Global, Shared, Local, Const, Param };
const char* spaceName(uint32_t space);
// aux of memory operations
constexpr uint32_t auxSpace = 7, auxAddress32 = 8, auxStrong = 16, auxReadOnly = 32, auxUniformAddress = 64,
                   auxPastFirstLevel = 128, auxCluster = 1 << 14;  // shared::cluster
/// ld: d0..d(n-1), address; st: address, s0..s(n-1). `width` is the registers' width.
Handler loadHandler(Type type, int width, int vector);
Handler storeHandler(Type type, int width, int vector);
/// atom: d, address, b, c; red: address, b.
Handler atomicHandler(const std::string& op, Type type, bool hasResult);
Handler asyncCopyHandler(int bytes);  // shared address, global address, size of the source
Handler asyncCommitHandler();
Handler asyncWaitHandler();  // immediate: groups that may stay unfinished
Handler spaceConversionHandler(bool toGeneric, uint32_t space, int width);
Handler isSpaceHandler(uint32_t space);

Handler shuffleHandler(const std::string& mode);  // mask, d, p, a, b, c
Handler voteHandler(const std::string& mode);  // mask, d, p
Handler reduxHandler(const std::string& op, Type type);  // mask, d, a
Handler matchHandler(const std::string& mode, int width);  // mask, d, p, a
Handler activeMaskHandler();  // d
Handler warpSyncHandler();  // mask
Handler fenceHandler();  // immediate: 0 block, 1 device
Handler launchDependentsHandler();  // griddepcontrol
Handler awaitDependenciesHandler();
Handler clockHandler(int width);
Handler trapHandler();
Handler assertHandler();  // message, file, line, function
Handler printHandler();  // d, format, arguments
Handler writtenHandler();  // immediate: tracked register
Handler checkWrittenHandler();

Handler loadMatrixHandler(int count, bool transposed);  // d0.., address
Handler storeMatrixHandler(int count, bool transposed);  // address, s0..
/// mma.sync: mask, d.., a.., b.., c..
Handler matrixHandler(const std::string& shape, Type d, Type a, Type b, Type c);

// sm_90
// aux of mbarrier operations, beside their space
constexpr uint32_t barrierExpects = 256, barrierDrops = 512, barrierNoComplete = 1024, barrierRelaxed = 2048,
                   barrierParity = 4096, barrierTries = 8192;
/// init: address, count; inval: address; expect_tx, complete_tx: address, bytes (immediate 1, -1); arrive, arrive_drop: state, address,
/// count or bytes; test_wait, try_wait: predicate, address, parity or state; pending_count: count, state.
Handler mbarrierHandler(const std::string& what);
Handler proxyFenceHandler();  // immediate: 0 all of shared memory, 1 initialisations of mbarriers
Handler bulkCopyHandler(
    bool store);  // load: shared address, global address, bytes, mbarrier; store: global address, shared address, bytes
/// shared address, tensor map, mbarrier, coordinates.., offsets..; target: dimensions.
Handler tensorCopyHandler(bool store);
constexpr uint32_t tensorIm2col = 256, bulkMulticast = 512;  // aux; the latter with a mask of ranks as the last operand
Handler bulkSendHandler();  // address in shared::cluster, shared address, bytes, mbarrier there
Handler storeLaterHandler();  // st.async: address in shared::cluster, mbarrier there, values; target: bytes of each
Handler bulkCommitHandler();
Handler bulkWaitHandler();  // immediate: groups that may stay unfinished; aux: 1 only reading must be done
Handler electHandler();  // mask, lane, p
Handler mapHandler(int width);  // mapa: d, address, rank; aux: space
Handler rankHandler();  // getctarank: d, 64-bit address; aux: space
Handler clusterArriveHandler();  // aux: clusterRelaxed, clusterAligned
Handler clusterWaitHandler();
constexpr uint32_t clusterRelaxed = 1, clusterAligned = 2;
Handler setRegistersHandler();  // immediate: registers; aux: 1 more, 0 fewer
/// wgmma.mma_async: mask, d.., a.. or descriptor, descriptor of b, scale-d; immediate: place in Program::matrixOperands.
Handler warpgroupHandler(Type d, Type a, Type b);
constexpr uint32_t matrixColumns = 0x1ff, matrixFragments = 1 << 16, matrixTransposedA = 1 << 17,
                   matrixTransposedB = 1 << 18, matrixNegatedA = 1 << 19,
                   matrixNegatedB = 1 << 20;  // aux: n, A from registers, majors, signs
Handler warpgroupFenceHandler();
Handler warpgroupCommitHandler();
Handler warpgroupWaitHandler();  // immediate: groups that may stay unfinished
/// Comes before an instruction that uses a register of wgmma; immediate: which, aux: 1 reads, 2 writes.
Handler accumulatorTouchHandler();
/// Comes before a move into such a register (immediate) from another (target).
Handler accumulatorMoveHandler();

}  // namespace emu
