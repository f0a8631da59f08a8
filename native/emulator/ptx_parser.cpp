#include <cctype>
#include <cstdlib>
#include <cstring>

#include "ptx_ast.h"

namespace emu {

namespace {
const struct {
  const char* name;
  Type type;
} typeNames[] = {{"pred", Type::Pred},     {"b8", Type::B8},     {"b16", Type::B16},     {"b32", Type::B32},
                 {"b64", Type::B64},       {"u8", Type::U8},     {"u16", Type::U16},     {"u32", Type::U32},
                 {"u64", Type::U64},       {"s8", Type::S8},     {"s16", Type::S16},     {"s32", Type::S32},
                 {"s64", Type::S64},       {"f16", Type::F16},   {"f16x2", Type::F16x2}, {"bf16", Type::BF16},
                 {"bf16x2", Type::BF16x2}, {"tf32", Type::TF32}, {"f32", Type::F32},     {"f64", Type::F64}};
}  // namespace

Type typeNamed(const std::string& name) {
  for (auto& t : typeNames)
    if (name == t.name) return t.type;
  return Type::None;
}
const char* nameOf(Type type) {
  for (auto& t : typeNames)
    if (type == t.type) return t.name;
  return "?";
}

namespace {

struct Token {
  enum Kind : uint8_t { End, Word, Integer, Float, String, Punctuation } kind = End;
  std::string text;
  uint64_t bits = 0;
  bool single = false;
  int line = 0;
  bool is(const char* s) const { return (kind == Word || kind == Punctuation) && text == s; }
};

/// Splits PTX into tokens; a word keeps its dots ("ld.global.v4.f32", "%tid.x") and double colons ("L1::no_allocate").
class Lexer {
 public:
  explicit Lexer(const std::string& text) : p(text.data()), end(text.data() + text.size()) {}

  Token next() {
    skipSpace();
    Token t;
    t.line = line;
    if (p >= end || !*p) return t;
    if (isdigit((unsigned char)*p)) return number(t);
    if (startsWord(*p)) {
      const char* s = p;
      while (p < end && (continuesWord(*p) || (*p == ':' && p + 2 < end && p[1] == ':' && continuesWord(p[2]))))
        p += *p == ':' ? 2 : 1;
      t.kind = Token::Word;
      t.text.assign(s, p);
      return t;
    }
    if (*p == '"') {
      const char* s = ++p;
      while (p < end && *p != '"') line += *p++ == '\n';
      t.kind = Token::String;
      t.text.assign(s, p);
      if (p < end) ++p;
      return t;
    }
    t.kind = Token::Punctuation;
    t.text = *p++;
    return t;
  }

 private:
  static bool startsWord(char c) { return isalpha((unsigned char)c) || c == '_' || c == '$' || c == '%' || c == '.'; }
  static bool continuesWord(char c) {
    return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '.' || c == '%';
  }

  void skipSpace() {
    for (;;) {
      while (p < end && isspace((unsigned char)*p)) line += *p++ == '\n';
      if (p + 1 < end && p[0] == '/' && p[1] == '/') {
        while (p < end && *p != '\n') ++p;
      } else if (p + 1 < end && p[0] == '/' && p[1] == '*') {
        p += 2;
        while (p + 1 < end && !(p[0] == '*' && p[1] == '/')) line += *p++ == '\n';
        p += 2;
      } else {
        return;
      }
    }
  }

  Token number(Token t) {
    char* stop;
    t.kind = Token::Integer;
    if (p[0] == '0' && (p[1] == 'f' || p[1] == 'F' || p[1] == 'd' || p[1] == 'D')) {
      t.kind = Token::Float;
      t.single = p[1] == 'f' || p[1] == 'F';
      t.bits = strtoull(std::string(p + 2, p + 2 + (t.single ? 8 : 16)).c_str(), &stop, 16);
      p += 2 + (t.single ? 8 : 16);
    } else if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
      t.bits = strtoull(p, &stop, 16);
      p = stop;
    } else if (p[0] == '0' && (p[1] == 'b' || p[1] == 'B')) {
      t.bits = strtoull(p + 2, &stop, 2);
      p = stop;
    } else {
      const char* q = p;
      while (q < end && isdigit((unsigned char)*q)) ++q;
      if (q < end && (*q == '.' || *q == 'e' || *q == 'E')) {
        double v = strtod(p, &stop);
        t.kind = Token::Float;
        memcpy(&t.bits, &v, 8);
      } else {
        t.bits = strtoull(p, &stop, p[0] == '0' ? 8 : 10);
      }
      p = stop;
    }
    if (t.kind == Token::Integer && p < end && (*p == 'U' || *p == 'u')) ++p;
    return t;
  }

  const char *p, *end;
  int line = 1;
};

class Parser {
 public:
  explicit Parser(const std::string& text) : lexer(text) { advance(); }

  ModuleAst module() {
    while (token.kind != Token::End) item();
    return std::move(ast);
  }

 private:
  [[noreturn]] void fail(const std::string& what) { throw PtxError(token.line, what); }
  void advance() { token = lexer.next(); }
  bool at(const char* s) const { return token.is(s); }
  bool take(const char* s) {
    if (!at(s)) return false;
    advance();
    return true;
  }
  void expect(const char* s) {
    if (!take(s)) fail(std::string("expected '") + s + "' but found '" + describe() + "'");
  }
  std::string describe() const {
    return token.kind == Token::End       ? "end of text"
           : token.kind == Token::Integer ? std::to_string(token.bits)
                                          : token.text;
  }
  std::string word() {
    if (token.kind != Token::Word) fail("expected a name but found '" + describe() + "'");
    std::string s = token.text;
    advance();
    return s;
  }
  int64_t integer() {
    bool minus = take("-");
    if (token.kind != Token::Integer) fail("expected a number but found '" + describe() + "'");
    int64_t v = (int64_t)token.bits;
    advance();
    return minus ? -v : v;
  }
  void skipLine() {
    int line = token.line;
    while (token.kind != Token::End && token.line == line) advance();
  }
  void skipBraces() {
    expect("{");
    for (int depth = 1; depth > 0;) {
      if (token.kind == Token::End) fail("unbalanced braces");
      if (at("{")) ++depth;
      if (at("}")) --depth;
      advance();
    }
  }

  void item() {
    if (take(".version")) {
      double v = 0;
      if (token.kind == Token::Float) memcpy(&v, &token.bits, 8);
      else v = (double)token.bits;
      ast.versionMajor = (int)v;
      ast.versionMinor = (int)((v - ast.versionMajor) * 10 + 0.5);
      advance();
      return;
    }
    if (take(".target")) {
      ast.target = word();
      while (take(",")) word();
      return;
    }
    if (take(".address_size")) {
      if (integer() != 64) fail("only 64-bit addresses are supported");
      return;
    }
    if (take(".file")) {
      int line = token.line;
      int index = (int)integer();
      ast.files[index] = token.text;
      while (token.kind != Token::End && token.line == line) advance();
      return;
    }
    if (at(".loc")) return skipLine();
    if (take(".section")) {
      word();
      return skipBraces();
    }
    if (take(".pragma")) {
      advance();
      return expect(";");
    }
    bool isExtern = false;
    while (at(".visible") || at(".extern") || at(".weak") || at(".common")) {
      isExtern |= at(".extern");
      advance();
    }
    if (at(".entry") || at(".func")) return function();
    if (at(".global") || at(".const") || at(".shared")) {
      declare(ast.variables, isExtern);
      return;
    }
    fail("unexpected '" + describe() + "' at module level");
  }

  void declare(std::vector<Variable>& into, bool isExtern) {
    std::string space = word().substr(1);
    Variable shape;
    shape.space = space;
    shape.isExtern = isExtern;
    shape.line = token.line;
    shape.alignment = 0;
    typeOf(shape);
    do {
      Variable v = shape;
      v.name = word();
      if (take("<")) {  // name<n>: a family of scalars
        int64_t n = integer();
        expect(">");
        for (int64_t i = 0; i < n; i++) {
          Variable one = v;
          one.name += std::to_string(i);
          into.push_back(one);
        }
        continue;
      }
      dimensions(v);
      if (take("=")) initialiser(v);
      into.push_back(std::move(v));
    } while (take(","));
    expect(";");
  }

  void typeOf(Variable& v) {
    for (;;) {
      if (take(".align")) {
        v.alignment = (int)integer();
      } else if (take(".v2")) {
        v.vector = 2;
      } else if (take(".v4")) {
        v.vector = 4;
      } else if (token.kind == Token::Word && token.text[0] == '.') {
        if (at(".ptr")) {  // attribute of a parameter: .ptr .global .align 8
          advance();
          if (at(".global") || at(".const") || at(".shared") || at(".local")) advance();
          if (take(".align")) integer();
          continue;
        }
        if (at(".attribute")) {
          advance();
          expect("(");
          while (!take(")")) advance();
          continue;
        }
        Type t = typeNamed(token.text.substr(1));
        if (t == Type::None) fail("unsupported type '" + token.text + "'");
        v.type = t;
        advance();
      } else {
        break;
      }
    }
    if (v.alignment == 0) v.alignment = std::max(1, sizeOf(v.type) * v.vector);
  }

  void dimensions(Variable& v) {
    while (take("[")) {
      v.isArray = true;
      v.count *= at("]") ? 0 : integer();
      expect("]");
    }
  }

  void initialiser(Variable& v) {
    if (take("{")) {
      while (!take("}")) {
        if (at("{")) {
          initialiser(v);
        } else {
          value(v);
        }
        if (!at("}")) expect(",");
      }
    } else {
      value(v);
    }
  }
  void value(Variable& v) {
    Variable::Initialiser i;
    if (token.kind == Token::Word) {
      bool generic = at("generic");
      i.symbol = word();
      if (generic) {
        expect("(");
        i.symbol = word();
        expect(")");
      }
      if (take("+")) i.offset = integer();
    } else {
      bool minus = take("-");
      if (token.kind != Token::Integer && token.kind != Token::Float)
        fail("unsupported initialiser '" + describe() + "'");
      i.value = token.bits;
      i.floating = token.kind == Token::Float;
      i.single = token.single;
      if (minus) i.value = i.floating ? i.value ^ (i.single ? 1ull << 31 : 1ull << 63) : (uint64_t) - (int64_t)i.value;
      advance();
    }
    v.values.push_back(i);
  }

  void parameters(std::vector<Variable>& into) {
    expect("(");
    while (!take(")")) {
      if (!at(".param") && !at(".reg")) fail("expected .param");
      Variable v;
      v.space = word().substr(1);
      v.alignment = 0;
      v.line = token.line;
      typeOf(v);
      v.name = word();
      dimensions(v);
      into.push_back(v);
      if (!at(")")) expect(",");
    }
  }

  void function() {
    auto f = std::make_unique<Function>();
    f->line = token.line;
    f->isEntry = word() == ".entry";
    if (!f->isEntry && at("(")) parameters(f->results);
    f->name = word();
    if (at("(")) parameters(f->parameters);
    for (;;) {
      if (take(".maxntid")) extents(f->maxThreads);
      else if (take(".reqntid")) extents(f->requiredThreads);
      else if (take(".minnctapersm")) f->minBlocks = (int)integer();
      else if (take(".maxnreg")) f->maxRegisters = (int)integer();
      else if (take(".reqnctapercluster")) extents(f->cluster);
      else if (take(".explicitcluster")) f->explicitCluster = true;
      else if (take(".maxclusterrank")) f->maxClusterRank = (int)integer();
      else if (take(".maxnctapersm")) integer();
      else if (take(".noreturn")) continue;
      else if (take(".pragma")) {
        advance();
        expect(";");
      } else break;
    }
    if (!take(";")) {
      expect("{");
      f->hasBody = true;
      location = {};
      scope(f->body);
    }
    ast.functions.push_back(std::move(f));
  }
  void extents(int* e) {
    e[0] = (int)integer();
    e[1] = e[2] = 1;
    for (int i = 1; i < 3 && take(","); i++) e[i] = (int)integer();
  }

  void scope(Scope& s) {
    while (!take("}")) {
      if (token.kind == Token::End) fail("missing '}'");
      statement(s);
    }
  }

  void statement(Scope& s) {
    if (take(";")) return;
    if (take("{")) {
      Statement st{Statement::Block, {}, {}, std::make_unique<Scope>()};
      scope(*st.block);
      s.statements.push_back(std::move(st));
      return;
    }
    if (take(".loc")) {
      int line = token.line;
      location.file = (int)integer();
      location.line = (int)integer();
      while (token.kind != Token::End && token.line == line) advance();
      return;
    }
    if (take(".pragma")) {
      advance();
      return expect(";");
    }
    if (take(".reg")) return registers(s);
    if (at(".local") || at(".shared") || at(".param") || at(".const") || at(".global"))
      return declare(s.variables, false);
    if (at("@")) return instruction(s);
    if (token.kind != Token::Word) fail("unexpected '" + describe() + "'");
    Token first = token;
    advance();
    if (take(":")) {
      if (at(".branchtargets")) {
        advance();
        auto& table = s.branchTables[first.text];
        do table.push_back(word());
        while (take(","));
        return expect(";");
      }
      if (at(".callprototype") || at(".calltargets")) fail("indirect calls are not supported");
      Statement st{Statement::Label, {}, first.text, nullptr};
      s.statements.push_back(std::move(st));
      return;
    }
    instruction(s, &first);
  }

  void registers(Scope& s) {
    Variable v;
    typeOf(v);
    do {
      RegisterDeclaration r{word(), v.type, -1};
      if (take("<")) {
        r.count = integer();
        expect(">");
      }
      s.registers.push_back(r);
    } while (take(","));
    expect(";");
  }

  void instruction(Scope& s, Token* first = nullptr) {
    Statement st{Statement::Instr, {}, {}, nullptr};
    Instruction& in = st.instruction;
    in.source = location;
    if (!first) {
      expect("@");
      in.guardNegated = take("!");
      in.guard = word();
      in.line = token.line;
      in.text = word();
    } else {
      in.text = first->text;
      in.line = first->line;
    }
    size_t from = in.text.find('.');
    in.opcode = in.text.substr(0, from);
    while (from != std::string::npos) {
      size_t to = in.text.find('.', from + 1);
      in.modifiers.push_back(in.text.substr(from + 1, to == std::string::npos ? to : to - from - 1));
      from = to;
    }
    while (!take(";")) {
      in.operands.push_back(operand());
      if (!at(";")) expect(",");
    }
    s.statements.push_back(std::move(st));
  }

  Operand operand() {
    Operand o;
    if (take("{")) {
      o.kind = Operand::Vector;
      while (!take("}")) {
        o.elements.push_back(operand());
        if (!at("}")) expect(",");
      }
      return o;
    }
    if (take("(")) {
      o.kind = Operand::List;
      while (!take(")")) {
        o.elements.push_back(operand());
        if (!at(")")) expect(",");
      }
      return o;
    }
    if (take("[")) {
      o.kind = Operand::Address;
      if (token.kind == Token::Word) o.name = word();
      else o.value = integer();
      while (at("+") || at("-")) {
        bool minus = at("-");
        advance();
        int64_t v = integer();
        o.value += minus ? -v : v;
      }
      if (take(",")) o.elements = operand().elements;  // [tensorMap, {coordinates}]
      expect("]");
      return o;
    }
    if (take("!")) {
      o = operand();
      o.negated = true;
      return o;
    }
    bool minus = take("-");
    if (token.kind == Token::Integer) {
      o.kind = Operand::Integer;
      o.value = minus ? -(int64_t)token.bits : (int64_t)token.bits;
      advance();
    } else if (token.kind == Token::Float) {
      o.kind = Operand::Float;
      o.bits = token.bits;
      o.single = token.single;
      if (minus) o.bits ^= o.single ? 1ull << 31 : 1ull << 63;
      advance();
    } else {
      o.name = word();
      if (at("+") || at("-")) {
        bool m = at("-");
        advance();
        int64_t v = integer();
        o.value = m ? -v : v;
      }
    }
    if (take("|")) o.second = std::make_shared<Operand>(operand());
    return o;
  }

  Lexer lexer;
  Token token;
  ModuleAst ast;
  SourceLine location;
};

}  // namespace

ModuleAst parsePtx(const std::string& text) { return Parser(text).module(); }

}  // namespace emu
