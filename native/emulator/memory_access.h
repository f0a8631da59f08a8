// Accesses to global and shared memory with the checks and counts that belong to them, for all instructions that make any.
#pragma once
#include "execution.h"
#include "instructions.h"

namespace emu {

struct Request {
  Warp& w;
  const Op& op;
  const uint64_t* at;  // by lane
  uint32_t lanes;
  uint32_t bytes;  // by lane
  Block* of = nullptr;  // whose shared memory; null: that of the warp's own block
  int thread = -1;  // the lane that all of them stand for; -1: each for itself
  int lane(int i) const { return thread < 0 ? i : thread; }
  bool is(uint32_t flag) const { return op.aux & flag; }
  Block& block() const { return of ? *of : *w.block; }
  bool remote() const { return of && of != w.block; }
};

/// The lanes' bytes: in the buffer, or where they lie.
const uint8_t* fetchGlobal(const Request& r, uint8_t* buffer, const char* space = "global");
void commitGlobal(const Request& r, const uint8_t* values);

/// A cell of shared memory for an access by a lane of the warp, now.
uint32_t sharedCell(const Warp& w, int lane, uint32_t mask);
/// The thread of a block that a cell of its shared memory tells of, as the warp knows it.
std::string cellThread(const Warp& w, const Block& b, uint32_t cell);
std::string blockName(const Launch& l, uint64_t linear);
void checkSharedBounds(const Request& r);
void checkSharedWrite(const Request& r, const uint8_t* values);
/// The same without remembering it, for a store that comes later.
void checkOverwrite(const Request& r);

uint32_t windowOf(uint64_t address);  // the space that a generic address lies in

}  // namespace emu
