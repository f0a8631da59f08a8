#include "report.h"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>

namespace emu {

std::string quoted(const std::string& s) {
  std::string r = "\"";
  for (unsigned char c : s) {
    if (c == '"' || c == '\\') r += '\\', r += (char)c;
    else if (c == '\n') r += "\\n";
    else if (c < 0x20) {
      char b[8];
      snprintf(b, sizeof b, "\\u%04x", c);
      r += b;
    } else r += (char)c;
  }
  return r + "\"";
}

std::string Finding::text() const {
  char b[512];
  std::string r = (warning ? "warning: " : "error: ") + kind;
  if (!kernel.empty()) r += " in " + kernel;
  if (line) r += ", PTX line " + std::to_string(line) + " (" + instruction + ")";
  if (sourceLine) r += ", " + sourceFile + ":" + std::to_string(sourceLine);
  if (hasThread) {
    snprintf(b, sizeof b, ", block (%u,%u,%u) thread (%u,%u,%u)", block[0], block[1], block[2], thread[0], thread[1],
             thread[2]);
    r += b;
  }
  if (!space.empty()) {
    snprintf(b, sizeof b, ", %s address 0x%" PRIx64 ", %d bytes", space.c_str(), address, bytes);
    r += b;
  }
  r += ": " + message;
  if (count > 1) r += " [" + std::to_string(count) + " times]";
  return r;
}

std::string Finding::json() const {
  char b[512];
  std::string r = std::string("{\"severity\":\"") + (warning ? "warning" : "error") + "\",\"kind\":" + quoted(kind) +
                  ",\"kernel\":" + quoted(kernel);
  r += ",\"ptxLine\":" + std::to_string(line) + ",\"instruction\":" + quoted(instruction);
  r += ",\"sourceFile\":" + quoted(sourceFile) + ",\"sourceLine\":" + std::to_string(sourceLine);
  if (hasThread) {
    snprintf(b, sizeof b, ",\"block\":[%u,%u,%u],\"thread\":[%u,%u,%u]", block[0], block[1], block[2], thread[0],
             thread[1], thread[2]);
    r += b;
  }
  snprintf(b, sizeof b, ",\"address\":\"0x%" PRIx64 "\",\"bytes\":%d,\"count\":%" PRIu64, address, bytes, count);
  return r + ",\"space\":" + quoted(space) + b + ",\"message\":" + quoted(message) + "}";
}

void Reports::add(Finding f) {
  std::lock_guard lock(mutex);
  (f.warning ? warningCount : errorCount)++;
  for (auto& known : findings) {
    if (known.kind == f.kind && known.kernel == f.kernel && known.line == f.line && known.warning == f.warning &&
        (f.line || known.message == f.message)) {
      known.count++;
      return;
    }
  }
  if (findings.size() >= 1000) return;  // counted all the same
  if (getenv("JTRELU_EMULATOR_VERBOSE")) fprintf(stderr, "[emulated CUDA device] %s\n", f.text().c_str());
  findings.push_back(std::move(f));
}
void Reports::clear() {
  std::lock_guard lock(mutex);
  findings.clear();
  errorCount = warningCount = 0;
}
uint64_t Reports::errors() {
  std::lock_guard lock(mutex);
  return errorCount;
}
uint64_t Reports::warnings() {
  std::lock_guard lock(mutex);
  return warningCount;
}
std::string Reports::text() {
  std::lock_guard lock(mutex);
  std::string r;
  for (auto& f : findings) r += f.text() + "\n";
  return r;
}
std::string Reports::json() {
  std::lock_guard lock(mutex);
  std::string r = "[";
  for (auto& f : findings) r += (r.size() > 1 ? ",\n" : "") + f.json();
  return r + "]";
}

Reports& reports() {
  static Reports* all = new Reports;  // never destroyed: calls may arrive while the process exits
  return *all;
}

}  // namespace emu
