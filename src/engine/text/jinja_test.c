/*
 * jinja_test.c - the tests: what stands after "is", and what select and reject take by name.
 */
#include "engine/text/jinja_run.h"

#define TEST(name)                                                                             \
    static struct jv name(__attribute__((unused)) struct jx *x,                                \
                          __attribute__((unused)) struct jv self,                              \
                          __attribute__((unused)) struct jv *arg,                              \
                          __attribute__((unused)) const struct jargs *raw)

#define KIND_TEST(name, condition)                                                             \
    TEST(name) {                                                                               \
        return jv_bool(condition);                                                             \
    }

static bool all_cased(struct jx *x, struct jv v, bool upper) {
    const struct jstr *s = jv_text(x, v);
    jx_step(x, s->n / 8);
    return js_is_cased(s, upper);
}

KIND_TEST(t_boolean, self.kind == JV_BOOL)
KIND_TEST(t_callable, self.kind == JV_FUNC || self.kind == JV_METHOD || self.kind == JV_MACRO ||
                          self.kind == JV_LOOP || self.kind == JV_JOINER ||
                          self.kind == JV_UNDEF)
KIND_TEST(t_defined, self.kind != JV_UNDEF)
KIND_TEST(t_escaped, self.kind == JV_STR && self.s->safe)
KIND_TEST(t_false, self.kind == JV_BOOL && !self.b)
KIND_TEST(t_float, self.kind == JV_FLOAT)
KIND_TEST(t_integer, self.kind == JV_INT || self.kind == JV_BIG)
KIND_TEST(t_iterable, jv_iterable(self))
KIND_TEST(t_mapping, self.kind == JV_DICT)
KIND_TEST(t_none, self.kind == JV_NONE)
KIND_TEST(t_number, jv_is_num(self) || self.kind == JV_BIG)
KIND_TEST(t_sequence, self.kind == JV_STR || jv_is_seq(self) || self.kind == JV_DICT ||
                          self.kind == JV_RANGE || self.kind == JV_UNDEF)
KIND_TEST(t_string, self.kind == JV_STR)
KIND_TEST(t_true, self.kind == JV_BOOL && self.b)
KIND_TEST(t_undefined, self.kind == JV_UNDEF)

KIND_TEST(t_eq, jv_eq(x, self, arg[0]))
KIND_TEST(t_ne, !jv_eq(x, self, arg[0]))
KIND_TEST(t_lt, jo_compare(x, JT_LT, self, arg[0]))
KIND_TEST(t_le, jo_compare(x, JT_LE, self, arg[0]))
KIND_TEST(t_gt, jo_compare(x, JT_GT, self, arg[0]))
KIND_TEST(t_ge, jo_compare(x, JT_GE, self, arg[0]))
KIND_TEST(t_in, jv_contains(x, self, arg[0]))
KIND_TEST(t_lower, all_cased(x, self, false))
KIND_TEST(t_upper, all_cased(x, self, true))

TEST(t_divisibleby) {
    return jv_bool(jv_eq(x, jo_binary(x, JT_MOD, self, arg[0]), jv_int(0)));
}

TEST(t_even) {
    return jv_bool(jv_eq(x, jo_binary(x, JT_MOD, self, jv_int(2)), jv_int(0)));
}

TEST(t_odd) {
    return jv_bool(jv_eq(x, jo_binary(x, JT_MOD, self, jv_int(2)), jv_int(1)));
}

/* Identity. Numbers and strings have none here that a template could rely on: equal and of one
 * kind is the same. */
TEST(t_sameas) {
    if (self.kind != arg[0].kind)
        return jv_bool(false);
    bool by_value = self.kind <= JV_STR && self.kind != JV_UNDEF;
    return jv_bool(by_value ? jv_eq(x, self, arg[0]) : self.l == arg[0].l);
}

static bool named(struct jx *x, struct jv v) {
    if (v.kind == JV_LIST || v.kind == JV_DICT)
        jx_fail(x, "unhashable type: '%s'", jv_type(v));
    return v.kind == JV_STR;
}

TEST(t_filter) {
    return jv_bool(named(x, self) && jb_find_filter(self.s->p, self.s->n));
}

TEST(t_test) {
    return jv_bool(named(x, self) && (jb_find(jb_tests, self.s->p, self.s->n) != NULL));
}

const struct jfn jb_tests[] = {{"!=", "/other", 1, t_ne},
                               {"<", "/other", 1, t_lt},
                               {"<=", "/other", 1, t_le},
                               {"==", "/other", 1, t_eq},
                               {">", "/other", 1, t_gt},
                               {">=", "/other", 1, t_ge},
                               {"boolean", "", 0, t_boolean},
                               {"callable", "/", 0, t_callable},
                               {"defined", "", 0, t_defined},
                               {"divisibleby", "num", 1, t_divisibleby},
                               {"eq", "/other", 1, t_eq},
                               {"equalto", "/other", 1, t_eq},
                               {"escaped", "", 0, t_escaped},
                               {"even", "", 0, t_even},
                               {"false", "", 0, t_false},
                               {"filter", "", 0, t_filter},
                               {"float", "", 0, t_float},
                               {"ge", "/other", 1, t_ge},
                               {"greaterthan", "/other", 1, t_gt},
                               {"gt", "/other", 1, t_gt},
                               {"in", "seq", 1, t_in},
                               {"integer", "", 0, t_integer},
                               {"iterable", "", 0, t_iterable},
                               {"le", "/other", 1, t_le},
                               {"lessthan", "/other", 1, t_lt},
                               {"lower", "", 0, t_lower},
                               {"lt", "/other", 1, t_lt},
                               {"mapping", "", 0, t_mapping},
                               {"ne", "/other", 1, t_ne},
                               {"none", "", 0, t_none},
                               {"number", "", 0, t_number},
                               {"odd", "", 0, t_odd},
                               {"sameas", "other", 1, t_sameas},
                               {"sequence", "", 0, t_sequence},
                               {"string", "", 0, t_string},
                               {"test", "", 0, t_test},
                               {"true", "", 0, t_true},
                               {"undefined", "", 0, t_undefined},
                               {"upper", "", 0, t_upper},
                               {0}};

bool jb_test(struct jx *x, const struct jstr *name, struct jv self, const struct jargs *a) {
    const struct jfn *t = jb_find(jb_tests, name->p, name->n);
    jx_step(x, 1);
    if (!t)
        jx_fail(x, "No test named '%.*s'", (int)(name->n < 60 ? name->n : 60), name->p);
    return jr_builtin(x, t, self, a).b;
}
