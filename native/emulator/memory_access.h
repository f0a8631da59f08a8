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
  bool is(uint32_t flag) const { return op.aux & flag; }
};

/// The lanes' bytes: in the buffer, or where they lie.
const uint8_t* fetchGlobal(const Request& r, uint8_t* buffer, const char* space = "global");
void commitGlobal(const Request& r, const uint8_t* values);

/// A cell of shared memory for an access by a lane of the warp, now.
uint32_t sharedCell(const Warp& w, int lane, uint32_t mask);
std::string cellThread(const Warp& w, uint32_t cell);
void checkSharedBounds(const Request& r);
void checkSharedWrite(const Request& r, const uint8_t* values);

uint32_t windowOf(uint64_t address);  // the space that a generic address lies in

}  // namespace emu
