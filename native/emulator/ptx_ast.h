// What the parser makes of PTX text: modules, functions, statements. No meaning is attached yet; lowering does that.
#pragma once
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace emu {

/// A module that cannot be loaded: bad syntax, or something this emulator does not execute. The text names line and instruction.
struct PtxError : std::runtime_error {
  PtxError(int line, const std::string& what)
      : std::runtime_error("PTX line " + std::to_string(line) + ": " + what), line(line) {}
  int line;
};

enum class Type : uint8_t {
  None,
  Pred,
  B8,
  B16,
  B32,
  B64,
  U8,
  U16,
  U32,
  U64,
  S8,
  S16,
  S32,
  S64,
  F16,
  F16x2,
  BF16,
  BF16x2,
  TF32,
  F32,
  F64
};

/// The type a name such as "f32" stands for, or None.
Type typeNamed(const std::string& name);
const char* nameOf(Type type);

/// Bytes of one value in memory.
constexpr int sizeOf(Type t) {
  switch (t) {
    case Type::B8:
    case Type::U8:
    case Type::S8: return 1;
    case Type::B16:
    case Type::U16:
    case Type::S16:
    case Type::F16:
    case Type::BF16: return 2;
    case Type::B64:
    case Type::U64:
    case Type::S64:
    case Type::F64: return 8;
    case Type::None:
    case Type::Pred: return 0;
    default: return 4;
  }
}
/// Bytes of the register that naturally holds the type (there are no 8-bit registers).
constexpr int widthOf(Type t) { return sizeOf(t) == 1 ? 2 : sizeOf(t); }
constexpr bool isSigned(Type t) { return t == Type::S8 || t == Type::S16 || t == Type::S32 || t == Type::S64; }
constexpr bool isFloating(Type t) { return t >= Type::F16; }

struct Operand {
  enum Kind : uint8_t { Name, Integer, Float, Address, Vector, List } kind = Name;
  std::string name;  // Name: register, symbol or label; Address: its base ("" when the base is a number)
  int64_t value = 0;  // Integer; the offset of a Name or an Address
  uint64_t bits = 0;  // Float: the value as a double's bits, unless single
  bool single = false;  // Float written as 0fXXXXXXXX: bits holds 32 bits
  bool negated = false;  // !%p
  std::vector<Operand> elements;  // Vector {a,b} and List (a,b)
  std::shared_ptr<Operand> second;  // a|b
};

struct Variable {
  std::string name;
  std::string space;  // global const shared local param
  Type type = Type::B8;
  int64_t count = 1;  // elements; 0 for an extern array without a size
  int alignment = 1;
  bool isArray = false, isExtern = false;
  struct Initialiser {
    uint64_t value = 0;
    bool floating = false;
    bool single = false;
    std::string symbol;
    int64_t offset = 0;
  };
  std::vector<Initialiser> values;
  int line = 0;
  int64_t bytes() const { return sizeOf(type) * vector * count; }
  int vector = 1;
};

struct RegisterDeclaration {
  std::string prefix;
  Type type;
  int64_t count;
};  // count < 0: one register of that name

struct SourceLine {
  int file = 0, line = 0;
};

struct Instruction {
  std::string guard;
  bool guardNegated = false;
  std::string text;  // opcode as written
  std::string opcode;  // up to the first dot
  std::vector<std::string> modifiers;
  std::vector<Operand> operands;
  int line = 0;
  SourceLine source;
};

struct Statement;
struct Scope {
  std::vector<RegisterDeclaration> registers;
  std::vector<Variable> variables;
  std::vector<Statement> statements;
  std::unordered_map<std::string, std::vector<std::string>> branchTables;
};
struct Statement {
  enum Kind : uint8_t { Instr, Label, Block } kind;
  Instruction instruction;
  std::string label;
  std::unique_ptr<Scope> block;
};

struct Function {
  std::string name;
  bool isEntry = false, hasBody = false;
  std::vector<Variable> results, parameters;
  Scope body;
  int maxThreads[3] = {0, 0, 0}, requiredThreads[3] = {0, 0, 0};
  int maxRegisters = 0, minBlocks = 0;
  int cluster[3] = {0, 0, 0}, maxClusterRank = 0;  // .reqnctapercluster; 0: not given
  bool explicitCluster = false;
  int line = 0;
};

struct ModuleAst {
  int versionMajor = 0, versionMinor = 0;
  std::string target;
  std::vector<Variable> variables;
  std::vector<std::unique_ptr<Function>> functions;
  std::unordered_map<int, std::string> files;
};

/// Parses PTX text; throws PtxError.
ModuleAst parsePtx(const std::string& text);

}  // namespace emu
