// From parsed PTX to operations: one section per family of instructions. To add an instruction, write its handler (declared in
// instructions.h), then add a case to Lowering::instruction. Modifiers that nobody takes make the module fail to load.
#include <algorithm>
#include <cstring>
#include <functional>
#include <map>

#include "execution.h"
#include "instructions.h"
#include "lowering.h"

namespace emu {

namespace {

/// The modifiers of an instruction, taken one by one; what is left in the end is unsupported.
class Modifiers {
 public:
  Modifiers(const Instruction& in) : in(in), left(in.modifiers) {}
  bool take(const char* name) {
    auto it = std::find(left.begin(), left.end(), name);
    if (it == left.end()) return false;
    left.erase(it);
    return true;
  }
  std::string takeAny(std::initializer_list<const char*> names) {
    for (auto n : names)
      if (take(n)) return n;
    return "";
  }
  Type takeType() {
    for (size_t i = 0; i < left.size(); i++) {
      Type t = typeNamed(left[i]);
      if (t == Type::None) continue;
      left.erase(left.begin() + (long)i);
      return t;
    }
    return Type::None;
  }
  /// Hints about caches, which have no meaning here.
  bool takeHints() {
    bool policy = false;
    left.erase(std::remove_if(left.begin(), left.end(),
                              [&](const std::string& m) {
                                if (m == "L2::cache_hint") policy = true;
                                return m.rfind("L1::", 0) == 0 || m.rfind("L2::", 0) == 0 || m == "ca" || m == "cg" ||
                                       m == "cs" || m == "lu" || m == "cv" || m == "wb" || m == "wt" || m == "unified";
                              }),
               left.end());
    return policy;
  }
  void done() const {
    if (!left.empty()) throw PtxError(in.line, "unsupported instruction '" + in.text + "': modifier ." + left.front());
  }
  const Instruction& in;
  std::vector<std::string> left;
};

struct Place {
  std::string space;  // global const shared local param frame
  int64_t address = 0;
  int id = -1;  // frame: the register that stands for a scalar parameter of a device function
};

struct Environment {
  const Environment* parent = nullptr;
  const Scope* scope = nullptr;
  mutable std::unordered_map<std::string, int> registers;
  std::unordered_map<std::string, Place> places;
  std::unordered_map<std::string, int> labels;
  int returnLabel = -1;
  const Function* function = nullptr;
};

const std::map<std::string, int> specialNames = {{"%tid.x", TidX},
                                                 {"%tid.y", TidY},
                                                 {"%tid.z", TidZ},
                                                 {"%ntid.x", NtidX},
                                                 {"%ntid.y", NtidY},
                                                 {"%ntid.z", NtidZ},
                                                 {"%ctaid.x", CtaidX},
                                                 {"%ctaid.y", CtaidY},
                                                 {"%ctaid.z", CtaidZ},
                                                 {"%nctaid.x", NctaidX},
                                                 {"%nctaid.y", NctaidY},
                                                 {"%nctaid.z", NctaidZ},
                                                 {"%laneid", LaneId},
                                                 {"%warpid", WarpId},
                                                 {"%nwarpid", NWarpId},
                                                 {"%smid", SmId},
                                                 {"%nsmid", NSmId},
                                                 {"%gridid", GridId},
                                                 {"%lanemask_eq", LaneMaskEq},
                                                 {"%lanemask_le", LaneMaskLe},
                                                 {"%lanemask_lt", LaneMaskLt},
                                                 {"%lanemask_ge", LaneMaskGe},
                                                 {"%lanemask_gt", LaneMaskGt},
                                                 {"%dynamic_smem_size", DynamicSharedSize},
                                                 {"%total_smem_size", TotalSharedSize},
                                                 {"%clusterid.x", ClusterIdX},
                                                 {"%clusterid.y", ClusterIdY},
                                                 {"%clusterid.z", ClusterIdZ},
                                                 {"%nclusterid.x", NClusterIdX},
                                                 {"%nclusterid.y", NClusterIdY},
                                                 {"%nclusterid.z", NClusterIdZ},
                                                 {"%cluster_ctaid.x", ClusterCtaIdX},
                                                 {"%cluster_ctaid.y", ClusterCtaIdY},
                                                 {"%cluster_ctaid.z", ClusterCtaIdZ},
                                                 {"%cluster_nctaid.x", ClusterNCtaIdX},
                                                 {"%cluster_nctaid.y", ClusterNCtaIdY},
                                                 {"%cluster_nctaid.z", ClusterNCtaIdZ},
                                                 {"%cluster_ctarank", ClusterCtaRank},
                                                 {"%cluster_nctarank", ClusterNCtaRank},
                                                 {"%clock", Clock},
                                                 {"%clock64", Clock64},
                                                 {"%clock_hi", ClockHi},
                                                 {"%globaltimer", GlobalTimer},
                                                 {"%globaltimer_lo", Clock}};

class Lowering {
 public:
  Lowering(const ModuleAst& ast, const ModuleSymbols& symbols, const Function& kernel)
      : ast(ast), symbols(symbols), kernel(kernel) {}

  std::unique_ptr<Program> run() {
    out = std::make_unique<Program>();
    out->name = kernel.name;
    out->files = ast.files;
    for (int i = 0; i < 3; i++)
      out->maxThreads[i] = kernel.maxThreads[i], out->requiredThreads[i] = kernel.requiredThreads[i],
      out->cluster[i] = kernel.cluster[i];
    out->maxClusterRank = kernel.maxClusterRank;
    out->explicitCluster = kernel.explicitCluster;
    out->maxRegisters = kernel.maxRegisters;
    out->minBlocks = kernel.minBlocks;
    code.predicates = 1;
    placeShared(kernel);
    out->staticShared = (int)sharedSize;
    Environment env;
    env.function = &kernel;
    int offset = 0;
    for (auto& p : kernel.parameters) {
      offset = (offset + p.alignment - 1) / p.alignment * p.alignment;
      out->parameters.push_back({offset, (int)p.bytes(), p.alignment});
      env.places[p.name] = {"param", offset, -1};
      offset += (int)p.bytes();
    }
    out->parameterBytes = offset;
    if (offset > 4096 && !(ast.versionMajor > 8 || (ast.versionMajor == 8 && ast.versionMinor >= 1)))
      throw PtxError(kernel.line, "more than 4096 bytes of parameters");
    scope(kernel.body, env);
    Instruction end;
    end.line = kernel.line;
    end.text = "end of kernel";
    current = &store(end);
    guard = truth();
    emit(nullptr, OpClass::Branch, {}).flow = Flow::Exit;
    out->localBytes = (int)((localSize + 15) / 16 * 16);
    resolveLabels();
    finishProgram(*out, code);
    return std::move(out);
  }

 private:
  // --- errors and emission -------------------------------------------------------------------------------------
  [[noreturn]] void unsupported(const std::string& why = "") {
    throw PtxError(current->line, "unsupported instruction '" + current->text + "'" + (why.empty() ? "" : ": " + why));
  }
  /// Instructions of sm_90, and those of sm_90a alone.
  void needs(const char* target) {
    bool own = !strcmp(target, "sm_90a");
    if (own ? ast.target != target : atoi(ast.target.c_str() + 3) < atoi(target + 3))
      unsupported(std::string("it needs .target ") + target);
  }
  [[noreturn]] void wrong(const std::string& what) {
    throw PtxError(current->line, what + " in '" + current->text + "'");
  }

  const Instruction& store(const Instruction& in) {
    owned.push_back(std::make_unique<Instruction>(in));
    return *owned.back();
  }
  Op& emit(Handler h, OpClass k, std::initializer_list<Ref> refs) { return emit(h, k, std::vector<Ref>(refs)); }
  Op& emit(Handler h, OpClass k, const std::vector<Ref>& refs) {
    Op op;
    op.run = h;
    op.klass = k;
    op.first = (uint32_t)code.refs.size();
    op.operandCount = (uint8_t)refs.size();
    code.refs.insert(code.refs.end(), refs.begin(), refs.end());
    code.guards.push_back(guard);
    OpOrigin origin;
    origin.line = current->line;
    origin.source = current->source;
    auto& text = texts[current->text];
    if (!text) text = std::make_shared<std::string>(current->text);
    origin.text = text.get();
    out->origins.push_back(origin);
    out->code.push_back(op);
    return out->code.back();
  }
  Op& need(Handler h, OpClass k, std::vector<Ref> refs) {
    if (!h) unsupported();
    return emit(h, k, refs);
  }

  // --- registers and constants ---------------------------------------------------------------------------------
  int newRegister(int width) {
    code.widths.push_back((uint8_t)width);
    return (int)code.widths.size() - 1;
  }
  static Ref use(int id) { return {id, Ref::Use, false, false, false}; }
  static Ref def(int id) { return {id, Ref::Def, false, false, false}; }
  static Ref truth() { return {0, Ref::None, true, false, true}; }
  Ref constant(int width, uint64_t value) {
    if (width < 8) value &= (1ull << (width * 8)) - 1;
    auto [it, fresh] = constants.try_emplace({width, value}, 0);
    if (fresh) {
      size_t at = (out->constants.size() + 63) / 64 * 64;
      out->constants.resize(at + 32 * (size_t)width);
      for (int i = 0; i < 32; i++) memcpy(&out->constants[at + (size_t)(i * width)], &value, (size_t)width);
      it->second = (int)at;
    }
    return {it->second, Ref::None, false, false, true};
  }
  int special(int id) {
    auto [it, fresh] = specials.try_emplace(id, -1);
    if (fresh) {
      it->second = newRegister(4);
      code.specials.push_back({id, it->second});
    }
    return it->second;
  }
  /// The register of that name, or -1.
  int findRegister(const Environment& env, const std::string& name) {
    for (const Environment* e = &env; e; e = e->parent) {
      auto it = e->registers.find(name);
      if (it != e->registers.end()) return it->second;
      if (!e->scope) continue;
      for (auto& d : e->scope->registers) {
        bool hit = d.count < 0 && d.prefix == name;
        if (d.count >= 0 && name.size() > d.prefix.size() && name.compare(0, d.prefix.size(), d.prefix) == 0) {
          const char* digits = name.c_str() + d.prefix.size();
          char* end;
          long n = strtol(digits, &end, 10);
          hit = isdigit((unsigned char)*digits) && !*end && n < d.count && (digits[0] != '0' || !digits[1]);
        }
        if (!hit) continue;
        int id = d.type == Type::Pred ? ~(code.predicates++) : newRegister(widthOf(d.type));
        if (d.type == Type::Pred) id = predicateBase - ~id;
        e->registers[name] = id;
        return id;
      }
    }
    return -1;
  }
  static constexpr int predicateBase = -1000;  // registers' ids are >= 0, predicates' <= predicateBase
  static bool isPredicateId(int id) { return id <= predicateBase; }

  const Place* findPlace(const Environment& env, const std::string& name) {
    for (const Environment* e = &env; e; e = e->parent) {
      auto it = e->places.find(name);
      if (it != e->places.end()) return &it->second;
    }
    auto it = sharedPlaces.find(name);
    if (it != sharedPlaces.end()) return &it->second;
    auto m = symbols.places.find(name);
    if (m == symbols.places.end()) return nullptr;
    static thread_local Place p;
    p = {m->second.space, (int64_t)m->second.address, -1};
    return &p;
  }

  Ref resized(Ref r, int from, int to, bool sign = false) {
    if (from == to) return r;
    int t = newRegister(to);
    emit(resizeHandler(to, from, sign), OpClass::Move, {def(t), r});
    return use(t);
  }
  Ref immediate(const Operand& o, Type type) {
    uint64_t v = (uint64_t)o.value;
    if (o.kind == Operand::Float) {
      v = o.bits;
      if (o.single && type == Type::F64) {
        float f;
        uint32_t b = (uint32_t)v;
        memcpy(&f, &b, 4);
        double d = f;
        memcpy(&v, &d, 8);
      } else if (!o.single && widthOf(type) == 4) {
        double d;
        memcpy(&d, &v, 8);
        float f = (float)d;
        uint32_t b;
        memcpy(&b, &f, 4);
        v = b;
      }
    }
    return constant(widthOf(type), v);
  }
  /// A source operand of the given type: register, special register, symbol's address or number.
  Ref source(const Operand& o, Type type, const Environment& env) {
    if (o.kind == Operand::Integer || o.kind == Operand::Float) return immediate(o, type);
    if (o.kind != Operand::Name) wrong("unexpected operand");
    if (o.negated) wrong("negated operand");
    int width = widthOf(type);
    int id = findRegister(env, o.name);
    if (id >= 0) return resized(use(id), code.widths[(size_t)id], width, isSigned(type));
    if (isPredicateId(id)) wrong("predicate " + o.name + " where a value is expected");
    auto s = specialNames.find(o.name);
    if (s != specialNames.end()) {
      if (s->second >= Clock) {
        int t = newRegister(width);
        emit(clockHandler(width), OpClass::Move, {def(t)});
        return use(t);
      }
      return resized(use(special(s->second)), 4, width);
    }
    if (o.name == "WARP_SZ") return constant(width, 32);
    if (const Place* p = findPlace(env, o.name)) {
      if (p->space == "frame") wrong("the address of a parameter is taken");
      return constant(width, (uint64_t)(p->address + o.value));
    }
    wrong("unknown name " + o.name);
  }
  Ref target(const Operand& o, Type type, const Environment& env) {
    int width = widthOf(type);
    if (o.kind == Operand::Name && o.name == "_") return def(newRegister(width));
    if (o.kind != Operand::Name) wrong("unexpected destination");
    int id = findRegister(env, o.name);
    if (id < 0) wrong(isPredicateId(id) ? "predicate as destination" : "unknown register " + o.name);
    if (code.widths[(size_t)id] == width) return def(id);
    int t = newRegister(width);
    later.push_back({id, t, width, isSigned(type)});
    return def(t);
  }
  Ref predicateUse(const Operand& o, const Environment& env) {
    if (o.kind == Operand::Integer) {
      Ref r = truth();
      r.negated = (o.value != 0) == o.negated;
      return r;
    }
    if (o.name == "%is_explicit_cluster") {
      Ref p = scratchPredicate();
      emit(compareHandler("ne", Type::U32, false), OpClass::Compare,
           {p, truth(), use(special(IsExplicitCluster)), constant(4, 0), truth()});
      p.role = Ref::Use;
      p.negated = o.negated;
      return p;
    }
    int id = findRegister(env, o.name);
    if (!isPredicateId(id)) wrong("expected a predicate but found " + o.name);
    return {predicateBase - id, Ref::Use, true, o.negated, false};
  }
  Ref predicateDef(const Operand& o, const Environment& env) {
    if (o.name == "_") return {code.predicates++, Ref::Def, true, false, false};
    int id = findRegister(env, o.name);
    if (!isPredicateId(id)) wrong("expected a predicate but found " + o.name);
    return {predicateBase - id, Ref::Def, true, false, false};
  }
  Ref scratchPredicate() { return {code.predicates++, Ref::Def, true, false, false}; }

  // --- scopes --------------------------------------------------------------------------------------------------
  void placeShared(const Function& f) {
    std::vector<const Function*> seen;
    std::vector<std::pair<const Variable*, std::string>> dynamic;
    std::function<void(const Scope&)> walk;
    auto add = [&](const Variable& v) {
      if (sharedPlaces.count(v.name)) return;
      if (v.isExtern || v.count == 0) {
        sharedPlaces[v.name] = {"shared", -1, v.alignment};
        out->usesDynamicShared = true;
        return;
      }
      sharedSize = (sharedSize + v.alignment - 1) / v.alignment * v.alignment;
      sharedPlaces[v.name] = {"shared", sharedSize, -1};
      sharedSize += v.bytes();
    };
    auto mention = [&](auto& self, const Operand& o) -> void {
      if (!o.name.empty()) {
        for (auto& v : ast.variables)
          if (v.space == "shared" && v.name == o.name) add(v);
        for (auto& g : ast.functions)
          if (g->hasBody && !g->isEntry && g->name == o.name &&
              std::find(seen.begin(), seen.end(), g.get()) == seen.end()) {
            seen.push_back(g.get());
            walk(g->body);
          }
      }
      for (auto& e : o.elements) self(self, e);
    };
    walk = [&](const Scope& s) {
      for (auto& v : s.variables)
        if (v.space == "shared") add(v);
      for (auto& st : s.statements) {
        if (st.kind == Statement::Block) walk(*st.block);
        if (st.kind == Statement::Instr)
          for (auto& o : st.instruction.operands) mention(mention, o);
      }
    };
    walk(f.body);
    // Dynamic shared memory follows the static variables, where the largest of its alignments lets it.
    int64_t alignment = 16;
    for (auto& [name, p] : sharedPlaces)
      if (p.address < 0) alignment = std::max<int64_t>(alignment, p.id);
    if (out->usesDynamicShared) sharedSize = (sharedSize + alignment - 1) / alignment * alignment;
    for (auto& [name, p] : sharedPlaces)
      if (p.address < 0) p.address = sharedSize, p.id = -1;
  }

  int newLabel() {
    labelPositions.push_back(-1);
    return (int)labelPositions.size() - 1;
  }
  void scope(const Scope& s, Environment& env) {
    env.scope = &s;
    for (auto& v : s.variables) {
      if (v.space == "local") {
        localSize = (localSize + v.alignment - 1) / v.alignment * v.alignment;
        env.places[v.name] = {"local", localSize, -1};
        localSize += v.bytes();
      } else if (v.space == "param") {
        env.places[v.name] = framePlace(v);
      } else if (v.space != "shared") {
        throw PtxError(v.line, "." + v.space + " variables inside functions are not supported");
      }
    }
    for (auto& st : s.statements)
      if (st.kind == Statement::Label) env.labels[st.label] = newLabel();
    for (auto& st : s.statements) {
      if (st.kind == Statement::Label) {
        labelPositions[(size_t)env.labels[st.label]] = (int)out->code.size();
      } else if (st.kind == Statement::Block) {
        Environment inner;
        inner.parent = &env;
        inner.returnLabel = env.returnLabel;
        inner.function = env.function;
        scope(*st.block, inner);
      } else {
        current = &st.instruction;
        guard = truth();
        if (!st.instruction.guard.empty()) {
          Operand p;
          p.name = st.instruction.guard;
          p.negated = st.instruction.guardNegated;
          guard = predicateUse(p, env);
        }
        later.clear();
        instruction(st.instruction, env);
        for (auto& l : later)
          emit(resizeHandler(code.widths[(size_t)l.to], l.width, l.sign), OpClass::Move, {def(l.to), use(l.from)});
        later.clear();
      }
    }
  }
  Place framePlace(const Variable& v) {
    if (!v.isArray) return {"frame", 0, newRegister(widthOf(v.type))};
    localSize = (localSize + v.alignment - 1) / v.alignment * v.alignment;
    Place p{"local", localSize, -1};
    localSize += v.bytes();
    return p;
  }
  int label(const Environment& env, const std::string& name) {
    for (const Environment* e = &env; e; e = e->parent) {
      auto it = e->labels.find(name);
      if (it != e->labels.end()) return it->second;
    }
    wrong("unknown label " + name);
  }
  void resolveLabels() {
    for (auto& op : out->code)
      if (op.flow == Flow::Branch) op.target = labelPositions[(size_t)op.target];
    for (auto& t : out->branchTables)
      for (auto& l : t) l = labelPositions[(size_t)l];
  }

  // --- addresses -----------------------------------------------------------------------------------------------
  struct Address {
    Ref base;
    int64_t offset;
    uint32_t aux;
    std::string space;
    const Place* place;
  };
  Address address(const Operand& o, const Environment& env) {
    if (o.kind != Operand::Address) wrong("expected an address");
    if (!o.elements.empty() && current->opcode != "cp") unsupported("this form of address");
    if (o.name.empty()) return {constant(8, 0), o.value, 0, "", nullptr};
    int id = findRegister(env, o.name);
    if (id >= 0) {
      int w = code.widths[(size_t)id];
      if (w != 4 && w != 8) wrong("address register of " + std::to_string(w * 8) + " bits");
      return {use(id), o.value, w == 4 ? auxAddress32 : 0, "", nullptr};
    }
    const Place* p = findPlace(env, o.name);
    if (!p) wrong("unknown name " + o.name);
    return {constant(8, 0), p->address + o.value, p->space == "param" ? auxUniformAddress : 0, p->space, p};
  }
  /// The address in a 64-bit register, for operations on a space that is given.
  Ref flat(const Operand& o, const Environment& env, uint32_t space) {
    Address a = address(o, env);
    if (a.place && a.space == "param") a.offset += (int64_t)paramWindow;
    if (a.place && a.space == "shared" && space == Generic) a.offset += (int64_t)sharedWindow;
    Ref base = resized(a.base, a.aux & auxAddress32 ? 4 : 8, 8);
    if (!a.offset) return base;
    if (base.constant && (o.name.empty() || a.place)) return constant(8, (uint64_t)a.offset);
    int t = newRegister(8);
    emit(arithmeticHandler("add", Type::U64, {}, 2), OpClass::Integer, {def(t), base, constant(8, (uint64_t)a.offset)});
    return use(t);
  }
  static uint32_t spaceNamed(const std::string& s) {
    return s == "global"               ? Global
           : s.rfind("shared", 0) == 0 ? Shared
           : s == "local"              ? Local
           : s == "const"              ? Const
           : s.rfind("param", 0) == 0  ? Param
                                       : Generic;
  }
  static std::string takeSpace(Modifiers& m) {
    return m.takeAny({"global", "shared::cta", "shared::cluster", "shared", "local", "const", "param::entry",
                      "param::func", "param"});
  }

  /// The aux of an address in shared::cluster, from the space's name.
  uint32_t clusterSpace(const std::string& name) {
    if (name != "shared::cluster") return 0;
    needs("sm_90");
    out->usesCluster = true;
    return auxCluster;
  }

  // --- instructions --------------------------------------------------------------------------------------------
  void instruction(const Instruction& in, const Environment& env) {
    const std::string& op = in.opcode;
    Modifiers m(in);
    auto& o = in.operands;
    auto count = [&](size_t least, size_t most) {
      if (o.size() < least || o.size() > most) wrong("wrong number of operands");
    };
    if (op == "mov") return count(2, 2), move(in, m, env);
    if (op == "ld" || op == "ldu") return load(in, m, env);
    if (op == "st") return storeTo(in, m, env);
    if (op == "bra") {
      m.take("uni");
      m.done();
      count(1, 1);
      Op& b = emit(nullptr, OpClass::Branch, {});
      b.flow = Flow::Branch;
      b.target = label(env, o[0].name);
      return;
    }
    if (op == "setp") return compare(in, m, env, false);
    if (op == "set") return compare(in, m, env, true);
    if (op == "cvt") return convert(in, m, env);
    if (op == "cvta") return convertAddress(in, m, env);
    if (op == "selp") {
      Type t = m.takeType();
      m.done(), count(4, 4);
      Ref a = source(o[1], t, env), b = source(o[2], t, env), p = predicateUse(o[3], env);
      emit(selectHandler(widthOf(t)), OpClass::Logic, {target(o[0], t, env), a, b, p});
      return;
    }
    if (op == "slct") {
      m.take("ftz");
      Type t = m.takeType(), s = m.takeType();
      m.done(), count(4, 4);
      Ref a = source(o[1], t, env), b = source(o[2], t, env), c = source(o[3], s, env);
      emit(slctHandler(widthOf(t), s), OpClass::Logic, {target(o[0], t, env), a, b, c});
      return;
    }
    if (op == "lop3") {
      Type t = m.takeType();
      m.done(), count(5, 5);
      if (t != Type::B32) unsupported();
      Ref a = source(o[1], t, env), b = source(o[2], t, env), c = source(o[3], t, env);
      emit(lop3Handler(), OpClass::Logic, {target(o[0], t, env), a, b, c}).immediate = o[4].value;
      return;
    }
    if (op == "prmt") {
      Type t = m.takeType();
      std::string mode = m.takeAny({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"});
      m.done(), count(4, 4);
      Ref a = source(o[1], t, env), b = source(o[2], t, env), c = source(o[3], t, env);
      need(prmtHandler(mode), OpClass::Logic, {target(o[0], t, env), a, b, c});
      return;
    }
    if (op == "shf") {
      bool left = m.take("l"), wrap;
      if (!left) m.take("r");
      wrap = m.take("wrap");
      if (!wrap) m.take("clamp");
      Type t = m.takeType();
      m.done(), count(4, 4);
      if (widthOf(t) != 4) unsupported();
      Ref a = source(o[1], t, env), b = source(o[2], t, env), c = source(o[3], Type::U32, env);
      emit(funnelHandler(left, wrap), OpClass::Logic, {target(o[0], t, env), a, b, c});
      return;
    }
    if (op == "bfi") {
      Type t = m.takeType();
      m.done(), count(5, 5);
      Ref a = source(o[1], t, env), b = source(o[2], t, env), c = source(o[3], Type::U32, env),
          d = source(o[4], Type::U32, env);
      need(bitFieldInsertHandler(t), OpClass::Logic, {target(o[0], t, env), a, b, c, d});
      return;
    }
    if (op == "dp4a" || op == "dp2a") {
      bool hi = m.take("hi");
      m.take("lo");
      Type a = m.takeType(), b = m.takeType();
      m.done(), count(4, 4);
      Ref x = source(o[1], Type::B32, env), y = source(o[2], Type::B32, env), z = source(o[3], Type::B32, env);
      need(dotHandler(op, isSigned(a), isSigned(b), hi), OpClass::Integer, {target(o[0], Type::B32, env), x, y, z});
      return;
    }
    if (op == "isspacep") {
      const std::string name = takeSpace(m);
      uint32_t space = spaceNamed(name);
      m.done(), count(2, 2);
      emit(isSpaceHandler(space), OpClass::Compare, {predicateDef(o[0], env), source(o[1], Type::U64, env)}).aux =
          (space == Const ? Global : space) | clusterSpace(name);
      return;
    }
    if (op == "call") return call(in, m, env);
    if (op == "ret" || op == "exit") {
      m.take("uni");
      m.done();
      Op& e = emit(nullptr, OpClass::Branch, {});
      if (op == "ret" && env.returnLabel >= 0) e.flow = Flow::Branch, e.target = env.returnLabel;
      else e.flow = Flow::Exit;
      return;
    }
    if (op == "brx") {
      if (!m.take("idx")) unsupported();
      m.take("uni");
      m.done(), count(2, 2);
      const std::vector<std::string>* names = nullptr;
      for (const Environment* e = &env; e && !names; e = e->parent) {
        auto it = e->scope->branchTables.find(o[1].name);
        if (it != e->scope->branchTables.end()) names = &it->second;
      }
      if (!names) wrong("unknown branch table " + o[1].name);
      std::vector<int32_t> table;
      for (auto& n : *names) table.push_back(label(env, n));
      Ref index = source(o[0], Type::U32, env);
      Op& b = emit(nullptr, OpClass::Branch, {index});
      b.flow = Flow::Indexed;
      b.immediate = (int64_t)out->branchTables.size();
      out->branchTables.push_back(table);
      return;
    }
    if (op == "trap" || op == "brkpt") {
      m.done();
      if (op == "trap") emit(trapHandler(), OpClass::Other, {});
      return;
    }
    if (op == "bar" || op == "barrier") return barrier(in, m, env);
    if (op == "membar" || op == "fence") {
      bool device = m.take("gl") | m.take("sys") | m.take("gpu"), cluster = device | m.take("cluster");
      m.take("cta"), m.take("sc"), m.take("acq_rel"), m.take("acquire"), m.take("release");
      bool initialisations = m.take("mbarrier_init"), asynchronous = false;
      if (m.take("proxy")) {
        asynchronous = m.take("async") && (m.left.empty() || m.left[0].rfind("shared", 0) == 0);
        m.left.clear();
      }
      m.done();
      if (initialisations || asynchronous) {
        out->usesAsyncProxy = true;
        emit(proxyFenceHandler(), OpClass::Fence, {}).immediate = initialisations;
      } else {
        Op& fence = emit(fenceHandler(), OpClass::Fence, {});
        fence.immediate = device;
        fence.aux = cluster;
      }
      return;
    }
    if (op == "shfl") {
      if (!m.take("sync")) unsupported("only the .sync form exists on these devices");
      std::string mode = m.takeAny({"up", "down", "bfly", "idx"});
      m.take("b32");
      m.done(), count(5, 5);
      Ref a = source(o[1], Type::B32, env), b = source(o[2], Type::B32, env), c = source(o[3], Type::B32, env),
          mask = source(o[4], Type::B32, env);
      Ref p = o[0].second ? predicateDef(*o[0].second, env) : scratchPredicate();
      need(shuffleHandler(mode), OpClass::WarpSync, {mask, target(o[0], Type::B32, env), p, a, b, c}).flow =
          Flow::Converge;
      return;
    }
    if (op == "vote") {
      if (!m.take("sync")) unsupported("only the .sync form exists on these devices");
      std::string mode = m.takeAny({"all", "any", "uni", "ballot"});
      m.takeType();
      m.done(), count(3, 3);
      Ref mask = source(o[2], Type::B32, env), p = predicateUse(o[1], env);
      Ref d = mode == "ballot" ? target(o[0], Type::B32, env) : predicateDef(o[0], env);
      need(voteHandler(mode), OpClass::WarpSync, {mask, d, p}).flow = Flow::Converge;
      return;
    }
    if (op == "redux") {
      if (!m.take("sync")) unsupported();
      std::string what = m.takeAny({"add", "min", "max", "and", "or", "xor"});
      Type t = m.takeType();
      m.done(), count(3, 3);
      Ref a = source(o[1], t, env), mask = source(o[2], Type::B32, env);
      need(widthOf(t) == 4 && !isFloating(t) ? reduxHandler(what, t) : nullptr, OpClass::WarpSync,
           {mask, target(o[0], t, env), a})
          .flow = Flow::Converge;
      return;
    }
    if (op == "match") {
      std::string mode = m.takeAny({"all", "any"});
      if (!m.take("sync")) unsupported();
      Type t = m.takeType();
      m.done(), count(3, 3);
      Ref a = source(o[1], t, env), mask = source(o[2], Type::B32, env);
      Ref p = o[0].second ? predicateDef(*o[0].second, env) : scratchPredicate();
      need(matchHandler(mode, widthOf(t)), OpClass::WarpSync, {mask, target(o[0], Type::B32, env), p, a}).flow =
          Flow::Converge;
      return;
    }
    if (op == "activemask") {
      m.takeType();
      m.done(), count(1, 1);
      emit(activeMaskHandler(), OpClass::WarpSync, {target(o[0], Type::B32, env)});
      return;
    }
    if (op == "atom" || op == "red") return atomic(in, m, env);
    if (op == "ldmatrix" || op == "stmatrix") return matrixMove(in, m, env);
    if (op == "mma") return matrix(in, m, env);
    if (op == "cp") return copy(in, m, env);
    if (op == "mbarrier") return mbarrier(in, m, env);
    if (op == "wgmma") return warpgroup(in, m, env);
    if (op == "elect") {
      needs("sm_90");
      if (!m.take("sync")) unsupported();
      m.done(), count(2, 2);
      Ref mask = source(o[1], Type::B32, env);
      Ref p = o[0].second ? predicateDef(*o[0].second, env) : scratchPredicate();
      emit(electHandler(), OpClass::WarpSync, {mask, target(o[0], Type::B32, env), p}).flow = Flow::Converge;
      return;
    }
    if (op == "setmaxnreg") {
      needs("sm_90a");
      bool more = m.take("inc");
      if (!more && !m.take("dec")) unsupported();
      m.take("sync"), m.take("aligned"), m.takeType();
      m.done(), count(1, 1);
      if (o[0].kind != Operand::Integer || o[0].value < 24 || o[0].value > 256 || o[0].value % 8)
        wrong("the number of registers is no multiple of 8 from 24 to 256");
      Op& s = emit(setRegistersHandler(), OpClass::Other, {constant(4, ~0u)});
      s.flow = Flow::Converge;
      s.immediate = o[0].value;
      s.aux = more;
      return;
    }
    if (op == "mapa" || op == "getctarank") {
      needs("sm_90");
      out->usesCluster = true;
      const bool named = m.take("shared::cluster"), maps = op == "mapa";
      Type t = m.takeType();
      m.done(), count(maps ? 3 : 2, maps ? 3 : 2);
      if (t != Type::U32 && t != Type::U64) unsupported();
      if (!named && t != Type::U64) unsupported("generic addresses have 64 bits");
      Ref a = source(o[1], maps ? t : t == Type::U32 ? Type::U32 : Type::U64, env);
      if (maps) {
        Ref rank = source(o[2], Type::U32, env);
        emit(mapHandler(widthOf(t)), OpClass::Integer, {target(o[0], t, env), a, rank}).aux = named ? Shared : Generic;
      } else {
        a = resized(a, widthOf(t), 8);
        emit(rankHandler(), OpClass::Integer, {target(o[0], Type::U32, env), a}).aux = named ? Shared : Generic;
      }
      return;
    }
    if (op == "clusterlaunchcontrol") unsupported("it needs compute capability 10.0");
    if (op == "createpolicy") {
      if (!o.empty()) emit(moveHandler(8), OpClass::Move, {target(o[0], Type::B64, env), constant(8, 0)});
      return;
    }
    if (op == "prefetch" || op == "prefetchu" || op == "applypriority" || op == "discard" || op == "nanosleep" ||
        op == "pmevent")
      return;
    if (op == "griddepcontrol") {
      needs("sm_90");
      const bool waits = m.take("wait");
      if (!waits && !m.take("launch_dependents")) unsupported();
      m.done(), count(0, 0);
      emit(waits ? awaitDependenciesHandler() : launchDependentsHandler(), OpClass::Other, {});
      return;
    }
    arithmetic(in, m, env);
  }

  void move(const Instruction& in, Modifiers& m, const Environment& env) {
    auto& o = in.operands;
    Type t = m.takeType();
    m.done();
    if (t == Type::Pred) {
      Ref a = predicateUse(o[1], env);
      emit(predicateLogicHandler("mov"), OpClass::Move, {predicateDef(o[0], env), a});
      return;
    }
    int whole = widthOf(t);
    auto part = [&](size_t n) -> Type {
      int w = n ? whole / (int)n : 0;
      if ((size_t)w * n != (size_t)whole || (w != 2 && w != 4)) unsupported("pack or unpack of this size");
      return w == 2 ? Type::B16 : Type::B32;
    };
    if (o[1].kind == Operand::Vector) {
      Type p = part(o[1].elements.size());
      std::vector<Ref> refs{target(o[0], t, env)};
      for (auto& e : o[1].elements) refs.push_back(source(e, p, env));
      need(packHandler(whole, widthOf(p)), OpClass::Move, refs);
    } else if (o[0].kind == Operand::Vector) {
      Type p = part(o[0].elements.size());
      std::vector<Ref> refs;
      for (auto& e : o[0].elements) refs.push_back(target(e, p, env));
      refs.push_back(source(o[1], t, env));
      need(unpackHandler(whole, widthOf(p)), OpClass::Move, refs);
    } else {
      Ref a = source(o[1], t, env);
      emit(moveHandler(whole), OpClass::Move, {target(o[0], t, env), a});
    }
  }

  static OpClass accessClass(uint32_t space, bool store) {
    switch (space) {
      case Shared: return store ? OpClass::StoreShared : OpClass::LoadShared;
      case Local: return store ? OpClass::StoreLocal : OpClass::LoadLocal;
      case Const: return OpClass::LoadConst;
      case Param: return OpClass::LoadParam;
      default: return store ? OpClass::StoreGlobal : OpClass::LoadGlobal;
    }
  }
  static bool takeOrdering(Modifiers& m) {
    bool strong = m.take("volatile") | m.take("relaxed") | m.take("acquire") | m.take("release") | m.take("acq_rel");
    m.take("weak"), m.take("cta"), m.take("cluster"), m.take("gpu"), m.take("sys");
    return strong;
  }

  void load(const Instruction& in, Modifiers& m, const Environment& env) {
    auto& o = in.operands;
    uint32_t aux = 0;
    if (takeOrdering(m)) aux |= auxStrong;
    std::string spaceText = takeSpace(m);
    if (in.opcode == "ldu" && spaceText.empty()) spaceText = "global";
    uint32_t space = spaceNamed(spaceText);
    aux |= clusterSpace(spaceText);
    if (m.take("nc")) aux |= auxReadOnly;
    if (m.take("cg") | m.take("cv")) aux |= auxPastFirstLevel;
    m.takeHints();
    int vector = m.take("v2") ? 2 : m.take("v4") ? 4 : 1;
    Type t = m.takeType();
    m.done();
    if (o.size() < 2 || sizeOf(t) == 0) wrong("malformed load");
    Address a = address(o[1], env);
    const std::vector<Operand> single{o[0]};
    const auto& to = o[0].kind == Operand::Vector ? o[0].elements : single;
    if ((int)to.size() != vector) wrong("the vector has another number of elements");
    if (a.space == "frame") {
      if (vector != 1 || o[1].value) unsupported("this access to a parameter of a device function");
      int width = code.widths[(size_t)a.place->id];
      Ref s = resized(use(a.place->id), width, widthOf(t), isSigned(t));
      emit(moveHandler(widthOf(t)), OpClass::Move, {target(to[0], t, env), s});
      return;
    }
    if (space == Param && a.space == "local") space = Local;
    else if (!a.space.empty() && space == Generic && a.space != "global" && a.space != "const")
      space = spaceNamed(a.space);
    int width = 0;
    std::vector<Ref> refs;
    for (auto& e : to) {
      if (e.name == "_") {
        refs.push_back({-1, Ref::Def, false, false, false});
        continue;
      }
      int id = findRegister(env, e.name);
      if (id < 0) wrong("unknown register " + e.name);
      if (width && code.widths[(size_t)id] != width) wrong("registers of different sizes");
      width = code.widths[(size_t)id];
      refs.push_back(def(id));
    }
    if (!width) width = widthOf(t);
    for (auto& r : refs)
      if (r.id == -1) r = def(newRegister(width));
    refs.push_back(a.base);
    if (space == Param && (a.aux & auxUniformAddress)) {
      if (a.offset < 0 || a.offset + sizeOf(t) * vector > out->parameterBytes)
        wrong("reads outside the kernel's parameters");
      if (a.offset % (sizeOf(t) * vector)) wrong("misaligned parameter address");
    }
    Op& op = need(loadHandler(t, width, vector), accessClass(space, false), refs);
    op.immediate = a.offset;
    op.aux = aux | space | a.aux;
  }

  void storeTo(const Instruction& in, Modifiers& m, const Environment& env) {
    auto& o = in.operands;
    if (m.take("async")) return storeLater(in, m, env);
    uint32_t aux = takeOrdering(m) ? auxStrong : 0;
    const std::string spaceText = takeSpace(m);
    uint32_t space = spaceNamed(spaceText);
    aux |= clusterSpace(spaceText);
    m.takeHints();
    int vector = m.take("v2") ? 2 : m.take("v4") ? 4 : 1;
    Type t = m.takeType();
    m.done();
    if (o.size() < 2 || sizeOf(t) == 0) wrong("malformed store");
    Address a = address(o[0], env);
    const std::vector<Operand> single{o[1]};
    const auto& from = o[1].kind == Operand::Vector ? o[1].elements : single;
    if ((int)from.size() != vector) wrong("the vector has another number of elements");
    if (a.space == "frame") {
      if (vector != 1 || o[0].value) unsupported("this access to a parameter of a device function");
      int width = code.widths[(size_t)a.place->id];
      Ref s = resized(source(from[0], t, env), widthOf(t), width, isSigned(t));
      emit(moveHandler(width), OpClass::Move, {def(a.place->id), s});
      return;
    }
    if (space == Param && a.space == "local") space = Local;
    else if (!a.space.empty() && space == Generic && a.space != "global" && a.space != "const")
      space = spaceNamed(a.space);
    int width = 0;
    for (auto& e : from) {
      int id = e.kind == Operand::Name ? findRegister(env, e.name) : -1;
      if (id >= 0) width = std::max<int>(width, code.widths[(size_t)id]);
    }
    if (!width) width = widthOf(t);
    Type wide = width == 2 ? Type::B16 : width == 4 ? Type::B32 : Type::B64;
    std::vector<Ref> refs{a.base};
    for (auto& e : from) refs.push_back(e.kind == Operand::Float ? immediate(e, t) : source(e, wide, env));
    Op& op = need(storeHandler(t, width, vector), accessClass(space, true), refs);
    op.immediate = a.offset;
    op.aux = aux | space | (a.aux & ~auxUniformAddress);
  }

  /// st.async, to the shared memory of a block of the cluster.
  void storeLater(const Instruction& in, Modifiers& m, const Environment& env) {
    auto& o = in.operands;
    m.take("weak"), m.take("cluster");
    if (!m.take("mbarrier::complete_tx::bytes")) unsupported();
    const uint32_t aux = clusterSpace(takeSpace(m));
    if (!aux) unsupported("generic addresses");
    const size_t vector = m.take("v2") ? 2 : m.take("v4") ? 4 : 1;
    Type t = m.takeType();
    m.done();
    if (o.size() != 3 || (sizeOf(t) != 4 && sizeOf(t) != 8) || (vector == 4 && sizeOf(t) == 8)) unsupported();
    const std::vector<Operand> single{o[1]};
    const auto& from = o[1].kind == Operand::Vector ? o[1].elements : single;
    if (from.size() != vector) wrong("the vector has another number of elements");
    out->usesAsyncProxy = true;
    std::vector<Ref> refs{flat(o[0], env, Shared), flat(o[2], env, Shared)};
    for (auto& e : from) refs.push_back(source(e, t, env));
    Op& op = emit(storeLaterHandler(), OpClass::StoreShared, refs);
    op.target = sizeOf(t);
    op.aux = Shared | aux;
  }

  void compare(const Instruction& in, Modifiers& m, const Environment& env, bool set) {
    auto& o = in.operands;
    std::string c;
    for (auto n : {"equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan", "eq", "ne", "lt", "le", "gt", "ge", "lo",
                   "ls", "hi", "hs"})
      if (!m.left.empty() && m.left[0] == n) {
        c = n;
        m.left.erase(m.left.begin());
        break;
      }
    uint32_t aux = m.take("and") ? 1 : m.take("or") ? 2 : m.take("xor") ? 3 : 0;
    bool ftz = m.take("ftz");
    Type d = set ? m.takeType() : Type::Pred, t = m.takeType();
    m.done();
    size_t least = aux ? 4 : 3;
    if (o.size() != least) wrong("wrong number of operands");
    Ref a = source(o[1], t, env), b = source(o[2], t, env), p = aux ? predicateUse(o[3], env) : truth();
    if (set) {
      if (isFloating(d)) aux |= 16;
      if (widthOf(d) == 4 && widthOf(t) == 2) aux |= 32;
      need(setHandler(c, t, ftz, d), OpClass::Compare, {target(o[0], d, env), a, b, p}).aux = aux;
      return;
    }
    Ref q = truth();
    if (o[0].second) q = predicateDef(*o[0].second, env), aux |= 8;
    need(compareHandler(c, t, ftz), OpClass::Compare, {predicateDef(o[0], env), q, a, b, p}).aux = aux;
  }

  void convert(const Instruction& in, Modifiers& m, const Environment& env) {
    auto& o = in.operands;
    uint32_t aux = 0;
    bool away = m.take("rna"), nearest = m.take("rn");
    if (m.take("rz")) aux = 1;
    if (m.take("rm")) aux = 2;
    if (m.take("rp")) aux = 3;
    if (m.take("rni")) aux = 4;
    if (m.take("rzi")) aux = 4 | 1;
    if (m.take("rmi")) aux = 4 | 2;
    if (m.take("rpi")) aux = 4 | 3;
    if (m.take("sat")) aux |= 8;
    if (m.take("ftz")) aux |= 16;
    if (m.take("relu")) aux |= 32;
    Type d = m.takeType(), s = m.takeType();
    m.done();
    if (d == Type::F16x2 || d == Type::BF16x2) {
      if (o.size() != 3 || s != Type::F32) unsupported();
      Ref a = source(o[1], s, env), b = source(o[2], s, env);
      need(convertPairHandler(d), OpClass::Convert, {target(o[0], d, env), a, b}).aux = aux;
      return;
    }
    if (o.size() != 2) wrong("wrong number of operands");
    if (d == Type::TF32 && nearest) aux |= 64;
    if (away && d != Type::TF32) unsupported("modifier .rna");
    Ref a = source(o[1], s, env);
    need(convertHandler(d, s), OpClass::Convert, {target(o[0], d, env), a}).aux = aux;
  }

  void convertAddress(const Instruction& in, Modifiers& m, const Environment& env) {
    auto& o = in.operands;
    bool to = m.take("to");
    uint32_t space = spaceNamed(takeSpace(m));
    Type t = m.takeType();
    m.done();
    if (o.size() != 2) wrong("wrong number of operands");
    Ref a = source(o[1], t, env);
    if (space == Global || space == Const) emit(moveHandler(widthOf(t)), OpClass::Move, {target(o[0], t, env), a});
    else
      emit(spaceConversionHandler(!to, space, widthOf(t)), OpClass::Integer, {target(o[0], t, env), a}).aux =
          space << 1 | (to ? 0 : 1);
  }

  void call(const Instruction& in, Modifiers& m, const Environment& env) {
    m.take("uni");
    m.done();
    auto& o = in.operands;
    size_t k = 0;
    std::vector<Operand> results, arguments;
    if (k < o.size() && o[k].kind == Operand::List) results = o[k++].elements;
    if (k >= o.size() || o[k].kind != Operand::Name) wrong("malformed call");
    std::string name = o[k++].name;
    if (k < o.size() && o[k].kind == Operand::List) arguments = o[k++].elements;
    if (k < o.size()) unsupported("indirect calls");
    const Function* f = nullptr;
    for (auto& g : ast.functions)
      if (g->name == name && (!f || g->hasBody)) f = g.get();
    if (!f) wrong("unknown function " + name);
    auto placeOf = [&](const Operand& a) -> Place {
      if (a.kind == Operand::Name) {
        int id = findRegister(env, a.name);
        if (id >= 0) return {"frame", 0, id};
        if (const Place* p = findPlace(env, a.name)) return *p;
        wrong("unknown argument " + a.name);
      }
      int t = newRegister(8);
      emit(moveHandler(8), OpClass::Move, {def(t), immediate(a, Type::B64)});
      return {"frame", 0, t};
    };
    std::vector<Place> ins, outs;
    for (auto& a : arguments) ins.push_back(placeOf(a));
    for (auto& r : results) outs.push_back(placeOf(r));
    if (!f->hasBody) {
      auto id = [&](size_t i) { return i < ins.size() ? ins[i].id : -1; };
      if (name == "__assertfail" && ins.size() >= 4 && id(0) >= 0 && id(1) >= 0 && id(2) >= 0 && id(3) >= 0) {
        emit(assertHandler(), OpClass::Other, {use(id(0)), use(id(1)), use(id(2)), use(id(3))});
      } else if (name == "vprintf" && ins.size() == 2 && outs.size() == 1) {
        emit(printHandler(), OpClass::Other, {def(outs[0].id), use(id(0)), use(id(1))});
      } else {
        unsupported("function " + name + " has no body");
      }
      return;
    }
    if (std::find(callStack.begin(), callStack.end(), f) != callStack.end()) unsupported("recursion in " + name);
    if (ins.size() != f->parameters.size() || outs.size() != f->results.size())
      wrong("wrong number of arguments for " + name);
    callStack.push_back(f);
    int after = newLabel();
    if (!guard.constant) {  // lanes that do not call go around the body
      Ref saved = guard;
      guard.negated = !guard.negated;
      Op& skip = emit(nullptr, OpClass::Branch, {});
      skip.flow = Flow::Branch;
      skip.target = after;
      guard = saved;
    }
    Environment inner;
    inner.function = f;
    inner.returnLabel = after;
    for (size_t i = 0; i < ins.size(); i++) inner.places[f->parameters[i].name] = ins[i];
    for (size_t i = 0; i < outs.size(); i++) inner.places[f->results[i].name] = outs[i];
    // Results and parameters may also be declared as registers.
    for (size_t i = 0; i < ins.size(); i++)
      if (f->parameters[i].space == "reg") inner.registers[f->parameters[i].name] = ins[i].id;
    for (size_t i = 0; i < outs.size(); i++)
      if (f->results[i].space == "reg") inner.registers[f->results[i].name] = outs[i].id;
    scope(f->body, inner);
    labelPositions[(size_t)after] = (int)out->code.size();
    callStack.pop_back();
    current = &in;
    guard = truth();
  }

  void barrier(const Instruction& in, Modifiers& m, const Environment& env) {
    auto& o = in.operands;
    bool aligned = in.opcode == "bar";
    if (m.take("aligned")) aligned = true;
    if (m.take("cluster")) {
      needs("sm_90");
      out->usesCluster = true;
      const bool arrives = m.take("arrive"), relaxed = m.take("relaxed");
      if (!arrives && (relaxed || !m.take("wait"))) unsupported();
      m.take(arrives ? "release" : "acquire");
      m.done();
      // A barrier.cluster is aligned where it says so, other than bar.
      Op& b = emit(arrives ? clusterArriveHandler() : clusterWaitHandler(), OpClass::Barrier, {});
      b.aux = (relaxed ? clusterRelaxed : 0) | (aligned ? clusterAligned : 0);
      if (!arrives) b.flow = Flow::Wait;
      return;
    }
    m.take("cta");
    if (m.take("warp")) {
      if (!m.take("sync")) unsupported();
      m.done();
      emit(warpSyncHandler(), OpClass::WarpSync, {source(o.at(0), Type::B32, env)}).flow = Flow::Converge;
      return;
    }
    uint32_t aux = aligned ? 2 : 0;
    bool red = m.take("red");
    std::vector<Ref> refs;
    size_t k = 0;
    if (red) {
      aux |= 1;
      aux |= m.take("popc") ? 8 : m.take("and") ? 16 : m.take("or") ? 32 : 0;
      m.takeType();
      k = 1;
    } else if (m.take("sync")) {
      aux |= 1;
    } else if (!m.take("arrive")) {
      unsupported();
    }
    m.done();
    size_t plain = o.size() - (red ? 2 : 0);
    if (o.size() < (red ? 3u : 1u) || plain > 2) wrong("wrong number of operands");
    refs.push_back(source(o[k], Type::U32, env));
    if (plain == 2) {
      refs.push_back(source(o[k + 1], Type::U32, env));
      aux |= 4;
    } else {
      refs.push_back(constant(4, 0));
    }
    if (red) {
      refs.push_back(aux & 8 ? target(o[0], Type::U32, env) : predicateDef(o[0], env));
      refs.push_back(predicateUse(o.back(), env));
    }
    Op& b = emit(nullptr, OpClass::Barrier, refs);
    b.flow = Flow::Barrier;
    b.aux = aux;
  }

  void atomic(const Instruction& in, Modifiers& m, const Environment& env) {
    auto& o = in.operands;
    bool result = in.opcode == "atom";
    m.take("relaxed");
    bool orders = m.take("acq_rel") | m.take("acquire") | m.take("release");
    m.take("cta"), m.take("cluster"), m.take("gpu"), m.take("sys"), m.take("noftz");
    const std::string spaceText = takeSpace(m);
    uint32_t space = spaceNamed(spaceText);
    m.takeHints();
    std::string what = m.takeAny({"add", "min", "max", "exch", "cas", "and", "or", "xor", "inc", "dec"});
    Type t = m.takeType();
    m.done();
    size_t at = result ? 1 : 0;
    if (o.size() < at + 2) wrong("wrong number of operands");
    Address a = address(o[at], env);
    if (!a.space.empty() && space == Generic && a.space != "global") space = spaceNamed(a.space);
    Ref b = source(o[at + 1], t, env);
    std::vector<Ref> refs;
    if (result) refs.push_back(target(o[0], t, env));
    refs.push_back(a.base);
    refs.push_back(b);
    if (result) refs.push_back(what == "cas" ? source(o.at(at + 2), t, env) : b);
    Op& op = need(atomicHandler(what, t, result), OpClass::Atomic, refs);
    op.immediate = a.offset;
    op.aux = space | a.aux | auxStrong | clusterSpace(spaceText);
    op.target = orders;
  }

  void matrixMove(const Instruction& in, Modifiers& m, const Environment& env) {
    auto& o = in.operands;
    bool load = in.opcode == "ldmatrix";
    if (!m.take("sync") || !m.take("aligned") || !m.take("m8n8")) unsupported();
    int n = m.take("x1") ? 1 : m.take("x2") ? 2 : m.take("x4") ? 4 : 0;
    bool t = m.take("trans");
    uint32_t space = spaceNamed(takeSpace(m));
    if (m.takeType() != Type::B16 || !n || o.size() != 2) unsupported();
    m.done();
    Address a = address(o[load ? 1 : 0], env);
    const Operand& list = o[load ? 0 : 1];
    if ((int)(list.kind == Operand::Vector ? list.elements.size() : 1) != n)
      wrong("the list has another number of registers");
    std::vector<Ref> refs;
    if (!load) refs.push_back(a.base);
    for (int k = 0; k < n; k++) {
      const Operand& e = list.kind == Operand::Vector ? list.elements[(size_t)k] : list;
      refs.push_back(load ? target(e, Type::B32, env) : source(e, Type::B32, env));
    }
    if (load) refs.push_back(a.base);
    refs.push_back(constant(4, ~0u));
    Op& op = emit(load ? loadMatrixHandler(n, t) : storeMatrixHandler(n, t),
                  load ? OpClass::LoadMatrix : OpClass::StoreShared, refs);
    op.flow = Flow::Converge;
    op.maskOperand = (uint8_t)(refs.size() - 1);
    op.immediate = a.offset;
    op.aux = space | (a.aux & auxAddress32);
    if (a.place) op.aux |= Shared;
  }

  void matrix(const Instruction& in, Modifiers& m, const Environment& env) {
    auto& o = in.operands;
    if (!m.take("sync") || !m.take("aligned")) unsupported();
    std::string shape = m.takeAny({"m16n8k16", "m16n8k8", "m16n8k4"});
    if (!m.take("row") || !m.take("col")) unsupported("layout");
    Type d = m.takeType(), a = m.takeType(), b = m.takeType(), c = m.takeType();
    m.done();
    Handler h = matrixHandler(shape, d, a, b, c);
    if (!h || o.size() != 4) unsupported();
    std::vector<Ref> refs{constant(4, ~0u)};
    size_t k = shape == "m16n8k16" ? 16 : shape == "m16n8k8" ? 8 : 4, per = a == Type::TF32 ? 4 : 8;
    size_t expected[4] = {d == Type::F32 ? 4u : 2u, 2 * k / per, k / per, d == Type::F32 ? 4u : 2u};
    for (size_t i = 0; i < 4; i++) {
      const std::vector<Operand> single{o[i]};
      const auto& list = o[i].kind == Operand::Vector ? o[i].elements : single;
      if (list.size() != expected[i]) wrong("a fragment has another number of registers");
      for (auto& e : list) refs.push_back(i == 0 ? target(e, Type::B32, env) : source(e, Type::B32, env));
    }
    emit(h, OpClass::Matrix, refs).flow = Flow::Converge;
  }

  void copy(const Instruction& in, Modifiers& m, const Environment& env) {
    auto& o = in.operands;
    if (!m.take("async")) unsupported();
    if (m.take("bulk")) return bulkCopy(in, m, env);
    if (m.take("commit_group")) {
      m.done();
      emit(asyncCommitHandler(), OpClass::AsyncCopy, {});
      return;
    }
    bool all = m.take("wait_all");
    if (all || m.take("wait_group")) {
      m.done();
      emit(asyncWaitHandler(), OpClass::AsyncCopy, {}).immediate = all ? -1 : o.at(0).value;
      return;
    }
    bool cg = m.take("cg");
    bool policy = m.takeHints();
    if (!(m.take("shared") | m.take("shared::cta")) || !m.take("global")) unsupported();
    m.done();
    if (o.size() < 3 || o[2].kind != Operand::Integer) wrong("malformed copy");
    Address to = address(o[0], env), from = address(o[1], env);
    int bytes = (int)o[2].value;
    if (cg && bytes != 16) wrong(".cg copies 16 bytes");
    size_t last = o.size() - (policy ? 1 : 0);
    Ref size = constant(4, (uint64_t)bytes);
    if (last > 3) {
      int id = o[3].kind == Operand::Name ? findRegister(env, o[3].name) : 0;
      if (isPredicateId(id)) {  // ignore-src: zeroes instead
        int t = newRegister(4);
        Ref p = predicateUse(o[3], env);
        emit(selectHandler(4), OpClass::AsyncCopy, {def(t), constant(4, 0), size, p});
        size = use(t);
      } else {
        size = source(o[3], Type::U32, env);
      }
    }
    Ref base = from.base;
    if (from.aux & auxAddress32) base = resized(base, 4, 8);
    if (from.offset != (int32_t)from.offset) {
      base = constant(8, (uint64_t)from.offset);
      from.offset = 0;
    }
    Op& op = need(asyncCopyHandler(bytes), OpClass::AsyncCopy, {to.base, base, size});
    op.immediate = to.offset;
    op.target = (int32_t)from.offset;
    op.aux = Shared | (to.aux & auxAddress32) | (cg ? auxPastFirstLevel : 0);
  }

  /// cp.async.bulk and cp.async.bulk.tensor, their groups, and prefetches, which have no meaning here.
  void bulkCopy(const Instruction& in, Modifiers& m, const Environment& env) {
    auto& o = in.operands;
    needs("sm_90");
    if (m.take("prefetch")) return;
    out->usesAsyncProxy = true;
    if (m.take("commit_group")) {
      m.done();
      emit(bulkCommitHandler(), OpClass::AsyncCopy, {});
      return;
    }
    if (m.take("wait_group")) {
      bool read = m.take("read");
      m.done();
      if (o.size() != 1 || o[0].kind != Operand::Integer) wrong("malformed wait");
      Op& w = emit(bulkWaitHandler(), OpClass::AsyncCopy, {});
      w.immediate = o[0].value;
      w.aux = read;
      return;
    }
    bool tensor = m.take("tensor");
    int rank = 0;
    if (tensor)
      for (int d = 1; d <= 5; d++)
        if (m.take((std::to_string(d) + "d").c_str())) rank = d;
    const bool multicast = m.take("multicast::cluster");
    bool im2col = m.take("im2col"), policy = m.takeHints(), store = m.take("bulk_group");
    m.take("tile");
    if (!store && !m.take("mbarrier::complete_tx::bytes")) unsupported();
    std::vector<Ref> refs;
    // The modifiers name the destination first.
    size_t shared = 0, global = 0;
    for (size_t i = 0; i < in.modifiers.size(); i++) {
      if (in.modifiers[i].rfind("shared", 0) == 0) shared = i;
      if (in.modifiers[i] == "global") global = i;
    }
    if (!tensor && !store && !multicast && m.take("shared::cta")) {
      if (m.left != std::vector<std::string>{"shared::cluster"}) unsupported();
      if (o.size() != 4u + policy) wrong("malformed bulk copy");
      refs = {flat(o[0], env, Shared), flat(o[1], env, Shared), source(o[2], Type::U32, env), flat(o[3], env, Shared)};
      refs[1] = resized(refs[1], 8, 4);
      emit(bulkSendHandler(), OpClass::AsyncCopy, refs).aux = Shared | clusterSpace("shared::cluster");
      return;
    }
    if (!m.take("global")) unsupported();
    uint32_t aux = auxPastFirstLevel | Shared | (multicast ? bulkMulticast : 0);
    if (!store && m.take("shared::cluster")) aux |= auxCluster;
    else if (!m.take("shared::cta")) unsupported();
    if (multicast) out->usesCluster = true;
    if ((shared > global) != store || (multicast && !(aux & auxCluster))) unsupported();
    m.done();
    size_t expected = (tensor ? 2 : 3) + (store ? 0 : 1) + (tensor && im2col ? 1 : 0) + multicast + policy;
    if (o.size() != expected || (tensor && (!rank || (im2col && (store || rank < 3))))) wrong("malformed bulk copy");
    const Operand* mask = multicast ? &o[expected - policy - 1] : nullptr;
    if (!tensor) {
      refs.push_back(flat(o[0], env, store ? Global : Shared));
      refs.push_back(flat(o[1], env, store ? Shared : Global));
      refs.push_back(source(o[2], Type::U32, env));
      if (!store) refs.push_back(flat(o[3], env, Shared));
      if (mask) refs.push_back(source(*mask, Type::U16, env));
      emit(bulkCopyHandler(store), OpClass::AsyncCopy, refs).aux = aux;
      return;
    }
    const Operand &map = o[store ? 0 : 1], &memory = o[store ? 1 : 0];
    if ((int)map.elements.size() != rank) wrong("another number of coordinates");
    if (map.value) wrong("the address of a tensor map takes no offset");
    Operand base = map;
    base.elements.clear();
    refs.push_back(flat(memory, env, Shared));
    refs.push_back(flat(base, env, Generic));
    refs.push_back(store ? constant(8, 0) : flat(o[2], env, Shared));
    for (auto& c : map.elements) refs.push_back(source(c, Type::S32, env));
    if (im2col) {
      if (o[3].kind != Operand::Vector || (int)o[3].elements.size() != rank - 2) wrong("another number of offsets");
      for (auto& c : o[3].elements) refs.push_back(source(c, Type::U16, env));
    }
    if (mask) refs.push_back(source(*mask, Type::U16, env));
    Op& op = emit(tensorCopyHandler(store), OpClass::AsyncCopy, refs);
    op.aux = aux | (im2col ? tensorIm2col : 0);
    op.target = rank;
  }

  void mbarrier(const Instruction& in, Modifiers& m, const Environment& env) {
    auto& o = in.operands;
    out->usesAsyncProxy = true;
    std::string what = m.takeAny({"init", "inval", "arrive", "arrive_drop", "test_wait", "try_wait", "pending_count",
                                  "expect_tx", "complete_tx"});
    if (what == "try_wait" || what == "expect_tx" || what == "complete_tx") needs("sm_90");
    uint32_t aux = 0;
    bool arrives = what == "arrive" || what == "arrive_drop", waits = what == "test_wait" || what == "try_wait";
    if (arrives && m.take("expect_tx")) aux |= barrierExpects;
    if (arrives && m.take("noComplete")) aux |= barrierNoComplete;
    if (what == "arrive_drop") aux |= barrierDrops;
    if (waits && m.take("parity")) aux |= barrierParity;
    if (what == "try_wait") aux |= barrierTries;
    if (m.take("relaxed")) aux |= barrierRelaxed;
    m.take("release"), m.take("acquire"), m.take("cta"), m.take("cluster");
    const std::string spaceText = takeSpace(m);
    uint32_t space = spaceNamed(spaceText);
    aux |= clusterSpace(spaceText);
    if ((aux & auxCluster) && !arrives && what != "expect_tx" && what != "complete_tx")
      unsupported("not on an mbarrier of another block");
    if (m.takeType() != Type::B64 || (space != Generic && space != Shared)) unsupported();
    m.done();
    auto operands = [&](size_t least, size_t most) {
      if (o.size() < least || o.size() > most) wrong("wrong number of operands");
    };
    std::vector<Ref> refs;
    if (what == "init" || what == "expect_tx" || what == "complete_tx") {
      operands(2, 2);
      refs = {flat(o[0], env, space), source(o[1], Type::U32, env)};
    } else if (what == "inval") {
      operands(1, 1);
      refs = {flat(o[0], env, space)};
    } else if (what == "pending_count") {
      operands(2, 2);
      refs = {{}, source(o[1], Type::B64, env)};
      refs[0] = target(o[0], Type::B32, env);
    } else if (arrives) {
      // Without a destination, too, where nothing can be returned.
      size_t at = o.at(0).kind == Operand::Address ? 0 : 1;
      operands(at + 1, at + 2);
      if ((aux & barrierExpects) && o.size() != at + 2) wrong("wrong number of operands");
      Ref address = flat(o[at], env, space);
      Ref count = o.size() == at + 2 ? source(o[at + 1], Type::U32, env) : constant(4, 1);
      if ((aux & auxCluster) && ((at && o[0].name != "_") || (aux & barrierNoComplete)))
        unsupported("an mbarrier of another block returns no state");
      Ref state = at ? target(o[0], Type::B64, env) : def(newRegister(8));
      refs = {state, address, count};
    } else if (waits) {
      operands(3, what == "try_wait" ? 4 : 3);
      Ref address = flat(o[1], env, space), asked = source(o[2], aux & barrierParity ? Type::U32 : Type::B64, env);
      refs = {predicateDef(o[0], env), address, asked};
    }
    Op& op = need(mbarrierHandler(what), OpClass::Barrier, refs);
    op.aux = aux | space;
    op.immediate = what == "complete_tx" ? -1 : 1;
    if (waits) op.flow = Flow::Wait;
  }

  void warpgroup(const Instruction& in, Modifiers& m, const Environment& env) {
    needs("sm_90a");
    auto& o = in.operands;
    out->usesAsyncProxy = true;
    std::string what = m.takeAny({"fence", "commit_group", "wait_group", "mma_async"});
    if (what.empty() || m.take("sp") || !m.take("sync") || !m.take("aligned")) unsupported();
    if (what != "mma_async") {
      m.done();
      bool waits = what == "wait_group";
      if (o.size() != (waits ? 1u : 0u)) wrong("wrong number of operands");
      Op& op = emit(what == "fence" ? warpgroupFenceHandler()
                    : waits         ? warpgroupWaitHandler()
                                    : warpgroupCommitHandler(),
                    OpClass::Matrix, {constant(4, ~0u)});
      op.flow = Flow::Converge;
      if (waits) op.immediate = o[0].value;
      return;
    }
    int columns = 0, depth = 0, length = 0;
    for (auto& s : m.left)
      if (sscanf(s.c_str(), "m64n%dk%d%n", &columns, &depth, &length) == 2 && s[(size_t)length] == 0) {
        m.take(std::string(s).c_str());
        break;
      }
    Type d = m.takeType(), a = m.takeType(), b = m.takeType();
    m.done();
    Handler h = warpgroupHandler(d, a, b);
    bool words = a == Type::TF32;
    if (!h || columns < 8 || columns > 256 || columns % 8 || depth != (words ? 8 : 16)) unsupported();
    bool fragments = o.size() > 1 && o[1].kind == Operand::Vector;
    if (o.size() != 6u + (words ? 0 : fragments ? 1 : 2)) wrong("wrong number of operands");
    auto immediate = [&](size_t i, int64_t x, int64_t y) {
      if (o[i].kind != Operand::Integer || (o[i].value != x && o[i].value != y)) wrong("an operand is out of range");
      return o[i].value == y;
    };
    uint32_t aux = (uint32_t)columns | (fragments ? matrixFragments : 0);
    if (immediate(4, 1, -1)) aux |= matrixNegatedA;
    if (immediate(5, 1, -1)) aux |= matrixNegatedB;
    if (!words && !fragments && immediate(6, 0, 1)) aux |= matrixTransposedA;
    if (!words && immediate(o.size() - 1, 0, 1)) aux |= matrixTransposedB;
    if (o[0].kind != Operand::Vector || (int)o[0].elements.size() != columns / 2 ||
        (fragments && o[1].elements.size() != 4))
      wrong("a fragment has another number of registers");
    std::vector<Ref> refs{constant(4, ~0u)};
    for (auto& e : o[0].elements) {
      Ref r = target(e, Type::B32, env);
      r.role = Ref::Def | Ref::Use;
      r.lenient = true;
      refs.push_back(r);
    }
    if (fragments)
      for (auto& e : o[1].elements) refs.push_back(source(e, Type::B32, env));
    else refs.push_back(source(o[1], Type::B64, env));
    refs.push_back(source(o[2], Type::B64, env));
    refs.push_back(predicateUse(o[3], env));
    Op& op = emit(h, OpClass::Matrix, refs);
    op.flow = Flow::Converge;
    op.aux = aux;
    op.immediate = (int64_t)out->matrixOperands.size();
    out->matrixOperands.emplace_back();
  }

  void arithmetic(const Instruction& in, Modifiers& m, const Environment& env) {
    auto& o = in.operands;
    std::string op = in.opcode;
    static const std::map<std::string, int> sources = {
        {"add", 2},  {"sub", 2},   {"mul", 2},  {"div", 2},  {"rem", 2},   {"min", 2},      {"max", 2},  {"and", 2},
        {"or", 2},   {"xor", 2},   {"shl", 2},  {"shr", 2},  {"mul24", 2}, {"copysign", 2}, {"mad", 3},  {"fma", 3},
        {"sad", 3},  {"mad24", 3}, {"bfe", 3},  {"abs", 1},  {"neg", 1},   {"not", 1},      {"cnot", 1}, {"bfind", 1},
        {"brev", 1}, {"clz", 1},   {"popc", 1}, {"rcp", 1},  {"sqrt", 1},  {"rsqrt", 1},    {"ex2", 1},  {"lg2", 1},
        {"sin", 1},  {"cos", 1},   {"tanh", 1}, {"addc", 2}, {"subc", 2},  {"madc", 3}};
    auto it = sources.find(op);
    if (it == sources.end()) unsupported();
    int n = it->second;
    if ((int)o.size() != n + 1) wrong("wrong number of operands");
    Variant v;
    bool carryIn = op.size() == 4 && op.back() == 'c' && (op == "addc" || op == "subc" || op == "madc"),
         carryOut = m.take("cc");
    if (carryIn) op.pop_back();
    v.hi = m.take("hi");
    if (!v.hi) m.take("lo");
    v.wide = m.take("wide");
    v.sat = m.take("sat");
    v.ftz = m.take("ftz");
    v.nan = m.take("NaN");
    v.relu = m.take("relu");
    if (op == "bfind") v.hi = m.take("shiftamt");
    m.take("approx"), m.take("full"), m.take("rn"), m.take("noftz");
    if (m.take("rz")) v.rounding = Rounding::Zero;
    if (m.take("rm")) v.rounding = Rounding::Down;
    if (m.take("rp")) v.rounding = Rounding::Up;
    Type t = m.takeType();
    m.done();
    if (t == Type::Pred) {
      Ref a = predicateUse(o[1], env);
      std::vector<Ref> refs{{}, a};
      if (n == 2) refs.push_back(predicateUse(o[2], env));
      refs[0] = predicateDef(o[0], env);
      need(predicateLogicHandler(op), OpClass::Logic, refs);
      return;
    }
    bool shift = op == "shl" || op == "shr";
    Type d = op == "clz" || op == "popc" || op == "bfind" ? Type::U32 : t;
    if (v.wide)
      d = t == Type::U16   ? Type::U32
          : t == Type::S16 ? Type::S32
          : t == Type::U32 ? Type::U64
          : t == Type::S32 ? Type::S64
                           : Type::None;
    if (d == Type::None) unsupported();
    std::vector<Ref> refs{{}};
    for (int k = 1; k <= n; k++) {
      Type s = t;
      if ((shift && k == 2) || (op == "bfe" && k >= 2)) s = Type::U32;
      if (v.wide && k == 3) s = d;
      refs.push_back(source(o[(size_t)k], s, env));
    }
    refs[0] = target(o[0], d, env);
    if (carryIn || carryOut) {
      if (carryPredicate < 0) carryPredicate = code.predicates++;
      Ref flag{carryPredicate, (uint8_t)((carryIn ? Ref::Use : 0) | (carryOut ? Ref::Def : 0)), true, false, false};
      refs.push_back(flag);
      need(carryHandler(op, t, v.hi), OpClass::Integer, refs).aux = (carryIn ? 1 : 0) | (carryOut ? 2 : 0);
      return;
    }
    Handler h = arithmeticHandler(op, t, v, n);
    if (!h && shift && isSigned(t))
      h = arithmeticHandler(op, t == Type::S64 ? Type::B64 : t == Type::S16 ? Type::B16 : Type::B32, v, n);
    OpClass k = OpClass::Integer;
    bool real = isFloating(t);
    static const char* const specials[] = {"rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh", "div"};
    bool isSpecial =
        real && std::any_of(std::begin(specials), std::end(specials), [&](const char* s) { return op == s; });
    if (isSpecial) k = OpClass::Special;
    else if (t == Type::F32) k = op == "fma" || op == "mad" ? OpClass::Fma32 : OpClass::Float32;
    else if (t == Type::F64) k = OpClass::Float64;
    else if (real) k = OpClass::Half;
    else if (t == Type::B16 || t == Type::B32 || t == Type::B64 || shift) k = OpClass::Logic;
    need(h, k, refs);
  }

  const ModuleAst& ast;
  const ModuleSymbols& symbols;
  const Function& kernel;
  std::unique_ptr<Program> out;
  VirtualCode code;
  Ref guard;
  const Instruction* current = nullptr;
  std::vector<std::unique_ptr<Instruction>> owned;
  std::map<std::string, std::shared_ptr<std::string>> texts;
  std::map<std::pair<int, uint64_t>, int> constants;
  std::map<int, int> specials;
  std::unordered_map<std::string, Place> sharedPlaces;
  int64_t sharedSize = 0, localSize = 0;
  std::vector<int> labelPositions;
  std::vector<const Function*> callStack;
  int carryPredicate = -1;
  struct Later {
    int to, from, width;
    bool sign;
  };
  std::vector<Later> later;

 public:
  std::map<std::string, std::shared_ptr<std::string>> takeTexts() { return std::move(texts); }
};

}  // namespace

std::unique_ptr<Program> lower(const ModuleAst& ast, const ModuleSymbols& symbols, const Function& kernel) {
  Lowering l(ast, symbols, kernel);
  auto p = l.run();
  for (auto& [name, text] : l.takeTexts()) p->texts.push_back(text);
  return p;
}

}  // namespace emu
