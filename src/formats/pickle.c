/* pickle.c - the stack machine behind pickle.h: one row of a table an opcode, one small function an effect.
 * Python's pickletools.py describes the opcodes. */
#include "formats/pickle.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "formats/bytes.h"
#include "formats/torch_class.h"

enum { PROTOCOL_MAX = 5, CLASS_NAME_MAX = 256 };

/* What follows an opcode's byte. */
enum operand_kind {
    OPERAND_NONE,
    OPERAND_U1,
    OPERAND_U2,
    OPERAND_U4,
    OPERAND_U8,
    OPERAND_BYTES1, /* a length of 1, 4 or 8 bytes, and as many bytes */
    OPERAND_BYTES4,
    OPERAND_BYTES8,
    OPERAND_LINES2, /* two lines: module, name */
};

struct operand {
    uint64_t number; /* or the length of `bytes` */
    const unsigned char *bytes;
    char module[CLASS_NAME_MAX], name[CLASS_NAME_MAX];
};

struct machine {
    const unsigned char *p, *end;
    size_t size; /* of the pickle: bounds what its numbers may ask for */
    struct arena *arena;
    struct pickle_value **stack; /* NULL items are marks */
    struct pickle_value **memo;
    size_t depth, stack_size, memo_count, memo_size;
    struct operand operand; /* of the opcode that runs */
    bool stopped;
    struct err *err;
};

enum { ABOVE_MARK = -1 }; /* as many items as there are above the uppermost mark, which goes with them */

struct opcode {
    const char *name;
    enum operand_kind operand;
    bool (*run)(struct machine *m, const struct opcode *op);
    enum pickle_type type; /* what it makes or fills */
    int n;                 /* how many items it takes for that, or the value of a boolean */
};

const char *pickle_type_text(enum pickle_type type)
{
    static const char *const texts[] = {
#define X(name, text) text,
        PICKLE_TYPES(X)
#undef X
    };

    return texts[type];
}

struct pickle_value *pickle_value_new(struct arena *arena, enum pickle_type type)
{
    struct pickle_value *value = arena_alloc(arena, sizeof *value);

    if (value)
        value->type = type;
    return value;
}

bool pickle_text_is(const struct pickle_value *value, const char *text)
{
    return value->type == PICKLE_TEXT && value->text.size == strlen(text) &&
           memcmp(value->text.data, text, value->text.size) == 0;
}

static bool fail_memory(struct machine *m)
{
    return err_set(m->err, ERR_MEMORY, "data.pkl: takes more memory to read than a checkpoint may");
}

static bool fail_damaged(struct machine *m, const char *what)
{
    return err_set(m->err, ERR_INVALID, "data.pkl: damaged: %s", what);
}

/* --- stack and memo ---------------------------------------------------------------------------------------------- */

/* Makes room for item `index` of an array that doubles; new items are NULL. */
static bool reserve(struct pickle_value ***items, size_t *capacity, size_t index)
{
    size_t wanted = *capacity ? *capacity : 256;
    struct pickle_value **grown;

    if (index < *capacity)
        return true;
    while (wanted <= index)
        wanted *= 2;
    grown = realloc(*items, wanted * sizeof **items);
    if (!grown)
        return false;
    memset(grown + *capacity, 0, (wanted - *capacity) * sizeof **items);
    *items = grown;
    *capacity = wanted;
    return true;
}

static bool push(struct machine *m, struct pickle_value *value)
{
    if (!reserve(&m->stack, &m->stack_size, m->depth))
        return fail_memory(m);
    m->stack[m->depth++] = value;
    return true;
}

/* A new value on the stack; NULL with the error set. */
static struct pickle_value *push_new(struct machine *m, enum pickle_type type)
{
    struct pickle_value *value = pickle_value_new(m->arena, type);

    if (!value)
        fail_memory(m);
    return value && push(m, value) ? value : NULL;
}

/* Are the uppermost n items there, none of them a mark? */
static bool need(struct machine *m, size_t n)
{
    if (m->depth < n)
        return fail_damaged(m, "takes more than there is");
    for (size_t i = 1; i <= n; i++)
        if (!m->stack[m->depth - i])
            return fail_damaged(m, "takes more than there is");
    return true;
}

/* The number of items the opcode takes, all of them there, and of marks under them that go too. */
static bool count_items(struct machine *m, const struct opcode *op, size_t *n, size_t *marks)
{
    *marks = op->n == ABOVE_MARK;
    *n = *marks ? 0 : (size_t)op->n;
    if (!*marks)
        return need(m, *n);
    for (; *n < m->depth; ++*n)
        if (!m->stack[m->depth - 1 - *n])
            return true;
    return fail_damaged(m, "a mark is missing");
}

/* Appends n items to a list, tuple, set or dict. */
static bool extend(struct machine *m, struct pickle_value *list, struct pickle_value *const *items, size_t n)
{
    size_t count = list->list.count, capacity = list->list.capacity;
    struct pickle_value **grown;

    if (count + n > capacity) {
        capacity = count + n > 2 * capacity ? count + n : 2 * capacity;
        grown = arena_alloc(m->arena, capacity * sizeof *grown);
        if (!grown)
            return fail_memory(m);
        if (count)
            memcpy(grown, list->list.items, count * sizeof *grown);
        list->list.items = grown;
        list->list.capacity = capacity;
    }
    if (n)
        memcpy(list->list.items + count, items, n * sizeof *items);
    list->list.count = count + n;
    return true;
}

/* --- what the opcodes do ------------------------------------------------------------------------------------------ */

static bool op_proto(struct machine *m, const struct opcode *op)
{
    (void)op;
    if (m->operand.number > PROTOCOL_MAX)
        return err_set(m->err, ERR_INVALID, "data.pkl: pickle protocol %d, at most %d is known", (int)m->operand.number,
                       PROTOCOL_MAX);
    return true;
}

static bool op_frame(struct machine *m, const struct opcode *op)
{
    (void)m;
    (void)op;
    return true;
}

static bool op_stop(struct machine *m, const struct opcode *op)
{
    (void)op;
    m->stopped = true;
    return need(m, 1);
}

static bool op_mark(struct machine *m, const struct opcode *op)
{
    (void)op;
    return push(m, NULL);
}

static bool op_pop(struct machine *m, const struct opcode *op)
{
    size_t n, marks;

    if (op->n == 1 && m->depth && !m->stack[m->depth - 1]) { /* POP takes a mark too */
        m->depth--;
        return true;
    }
    if (!count_items(m, op, &n, &marks))
        return false;
    m->depth -= n + marks;
    return true;
}

static bool op_dup(struct machine *m, const struct opcode *op)
{
    (void)op;
    return need(m, 1) && push(m, m->stack[m->depth - 1]);
}

static bool op_none(struct machine *m, const struct opcode *op)
{
    (void)op;
    return push_new(m, PICKLE_NONE);
}

static bool op_bool(struct machine *m, const struct opcode *op)
{
    struct pickle_value *value = push_new(m, PICKLE_BOOL);

    if (value)
        value->boolean = op->n;
    return value;
}

static bool push_int(struct machine *m, int64_t integer)
{
    struct pickle_value *value = push_new(m, PICKLE_INT);

    if (value)
        value->integer = integer;
    return value;
}

static bool op_unsigned(struct machine *m, const struct opcode *op)
{
    (void)op;
    return push_int(m, (int64_t)m->operand.number);
}

static bool op_int(struct machine *m, const struct opcode *op)
{
    (void)op;
    return push_int(m, (int32_t)(uint32_t)m->operand.number);
}

/* A two's complement number of any length; only tensors' numbers matter, and they fit in 64 bits. */
static bool op_long(struct machine *m, const struct opcode *op)
{
    uint64_t n = m->operand.number, bits = 0;
    bool negative = n && m->operand.bytes[n - 1] & 0x80;

    (void)op;
    if (n > sizeof bits)
        return push_int(m, negative ? INT64_MIN : INT64_MAX);
    for (uint64_t i = 0; i < sizeof bits; i++)
        bits |= (uint64_t)(i < n ? m->operand.bytes[i] : negative ? 0xFF : 0) << 8 * i;
    return push_int(m, (int64_t)bits);
}

/* Big-endian, unlike everything else. */
static bool op_float(struct machine *m, const struct opcode *op)
{
    struct pickle_value *value = push_new(m, PICKLE_FLOAT);
    uint64_t bits = __builtin_bswap64(m->operand.number);

    (void)op;
    if (value)
        memcpy(&value->number, &bits, sizeof value->number);
    return value;
}

static bool op_text(struct machine *m, const struct opcode *op)
{
    struct pickle_value *value = push_new(m, op->type);
    size_t size = (size_t)m->operand.number;
    char *copy = arena_alloc(m->arena, size + 1);

    if (!value)
        return false;
    if (!copy)
        return fail_memory(m);
    memcpy(copy, m->operand.bytes, size);
    value->text.data = copy;
    value->text.size = size;
    return true;
}

/* Takes items off the stack and pushes them as one collection. */
static bool op_collect(struct machine *m, const struct opcode *op)
{
    struct pickle_value *list;
    size_t n, marks;

    if (!count_items(m, op, &n, &marks))
        return false;
    if (op->type == PICKLE_DICT && n % 2)
        return fail_damaged(m, "a key without a value");
    list = pickle_value_new(m->arena, op->type);
    if (!list)
        return fail_memory(m);
    if (!extend(m, list, m->stack + m->depth - n, n))
        return false;
    m->depth -= n + marks;
    return push(m, list);
}

/* Takes items off the stack and puts them into the collection that was under them. */
static bool op_put_in(struct machine *m, const struct opcode *op)
{
    struct pickle_value *target;
    size_t n, marks;

    if (!count_items(m, op, &n, &marks))
        return false;
    target = m->depth > n + marks ? m->stack[m->depth - n - marks - 1] : NULL;
    if (!target || target->type != op->type)
        return err_set(m->err, ERR_INVALID, "data.pkl: adds items to %s; refused",
                       target ? pickle_type_text(target->type) : "nothing");
    if (op->type == PICKLE_DICT && n % 2)
        return fail_damaged(m, "a key without a value");
    if (!extend(m, target, m->stack + m->depth - n, n))
        return false;
    m->depth -= n + marks;
    return true;
}

/* PUT has a number, MEMOIZE takes the next one. */
static bool op_put(struct machine *m, const struct opcode *op)
{
    uint64_t index = op->operand == OPERAND_NONE ? m->memo_count : m->operand.number;

    if (!need(m, 1))
        return false;
    if (index >= m->size)
        return fail_damaged(m, "an impossible memo number");
    if (!reserve(&m->memo, &m->memo_size, (size_t)index))
        return fail_memory(m);
    m->memo_count += !m->memo[index];
    m->memo[index] = m->stack[m->depth - 1];
    return true;
}

static bool op_get(struct machine *m, const struct opcode *op)
{
    (void)op;
    if (m->operand.number >= m->memo_size || !m->memo[m->operand.number])
        return fail_damaged(m, "a memo number that was not given");
    return push(m, m->memo[m->operand.number]);
}

static bool push_class(struct machine *m, const char *module, const char *name)
{
    const struct torch_class *class = torch_class_find(module, name);
    struct pickle_value *value;

    if (!class)
        return err_set(m->err, ERR_INVALID,
                       "data.pkl calls \"%s.%s\": this is not a plain dictionary of tensors; refused. "
                       "Save model.state_dict() alone",
                       module, name);
    value = push_new(m, PICKLE_CLASS);
    if (value)
        value->class = class;
    return value;
}

static bool op_global(struct machine *m, const struct opcode *op)
{
    (void)op;
    return push_class(m, m->operand.module, m->operand.name);
}

static bool op_stack_global(struct machine *m, const struct opcode *op)
{
    const struct pickle_value *module, *name;

    (void)op;
    if (!need(m, 2))
        return false;
    module = m->stack[m->depth - 2];
    name = m->stack[m->depth - 1];
    if (module->type != PICKLE_TEXT || name->type != PICKLE_TEXT || module->text.size >= CLASS_NAME_MAX ||
        name->text.size >= CLASS_NAME_MAX || !text_is_utf8(module->text.data, module->text.size) ||
        !text_is_utf8(name->text.data, name->text.size))
        return fail_damaged(m, "the name of a class is none");
    m->depth -= 2;
    return push_class(m, module->text.data, name->text.data);
}

/* REDUCE and NEWOBJ: both call a class with a tuple of arguments. */
static bool op_call(struct machine *m, const struct opcode *op)
{
    const struct pickle_value *class;
    struct pickle_value *result;

    (void)op;
    if (!need(m, 2))
        return false;
    class = m->stack[m->depth - 2];
    if (class->type != PICKLE_CLASS)
        return err_set(m->err, ERR_INVALID, "data.pkl: calls %s; refused", pickle_type_text(class->type));
    result = torch_class_call(class->class, m->stack[m->depth - 1], m->arena, m->err);
    if (!result)
        return false;
    m->depth -= 2;
    return push(m, result);
}

/* Attributes: an OrderedDict may have them (_metadata), and they are dropped. */
static bool op_build(struct machine *m, const struct opcode *op)
{
    const struct pickle_value *target;

    (void)op;
    if (!need(m, 2))
        return false;
    target = m->stack[m->depth - 2];
    if (target->type != PICKLE_DICT)
        return err_set(m->err, ERR_INVALID, "data.pkl: sets attributes of %s; refused", pickle_type_text(target->type));
    m->depth--;
    return true;
}

static bool op_persistent(struct machine *m, const struct opcode *op)
{
    struct pickle_value *storage;

    (void)op;
    if (!need(m, 1))
        return false;
    storage = torch_storage(m->stack[m->depth - 1], m->arena, m->err);
    if (!storage)
        return false;
    m->depth--;
    return push(m, storage);
}

/* All others, among them the text opcodes of protocols 0 and 1, are refused. */
#define OP(name, operand, run) OP_OF(name, operand, run, NONE, 0)
#define OP_OF(name, operand, run, type, n)                                                                             \
    {                                                                                                                  \
        name, OPERAND_##operand, run, PICKLE_##type, n                                                                 \
    }
static const struct opcode opcodes[256] = {
    [0x80] = OP("PROTO", U1, op_proto),
    [0x95] = OP("FRAME", U8, op_frame),
    ['.'] = OP("STOP", NONE, op_stop),
    ['('] = OP("MARK", NONE, op_mark),
    ['0'] = OP_OF("POP", NONE, op_pop, NONE, 1),
    ['1'] = OP_OF("POP_MARK", NONE, op_pop, NONE, ABOVE_MARK),
    ['2'] = OP("DUP", NONE, op_dup),
    ['N'] = OP("NONE", NONE, op_none),
    [0x88] = OP_OF("NEWTRUE", NONE, op_bool, BOOL, 1),
    [0x89] = OP_OF("NEWFALSE", NONE, op_bool, BOOL, 0),
    ['J'] = OP("BININT", U4, op_int),
    ['K'] = OP("BININT1", U1, op_unsigned),
    ['M'] = OP("BININT2", U2, op_unsigned),
    [0x8a] = OP("LONG1", BYTES1, op_long),
    [0x8b] = OP("LONG4", BYTES4, op_long),
    ['G'] = OP("BINFLOAT", U8, op_float),
    ['U'] = OP_OF("SHORT_BINSTRING", BYTES1, op_text, TEXT, 0),
    ['T'] = OP_OF("BINSTRING", BYTES4, op_text, TEXT, 0),
    [0x8c] = OP_OF("SHORT_BINUNICODE", BYTES1, op_text, TEXT, 0),
    ['X'] = OP_OF("BINUNICODE", BYTES4, op_text, TEXT, 0),
    [0x8d] = OP_OF("BINUNICODE8", BYTES8, op_text, TEXT, 0),
    ['C'] = OP_OF("SHORT_BINBYTES", BYTES1, op_text, BYTES, 0),
    ['B'] = OP_OF("BINBYTES", BYTES4, op_text, BYTES, 0),
    [0x8e] = OP_OF("BINBYTES8", BYTES8, op_text, BYTES, 0),
    [0x96] = OP_OF("BYTEARRAY8", BYTES8, op_text, BYTES, 0),
    [')'] = OP_OF("EMPTY_TUPLE", NONE, op_collect, TUPLE, 0),
    ['t'] = OP_OF("TUPLE", NONE, op_collect, TUPLE, ABOVE_MARK),
    [0x85] = OP_OF("TUPLE1", NONE, op_collect, TUPLE, 1),
    [0x86] = OP_OF("TUPLE2", NONE, op_collect, TUPLE, 2),
    [0x87] = OP_OF("TUPLE3", NONE, op_collect, TUPLE, 3),
    [']'] = OP_OF("EMPTY_LIST", NONE, op_collect, LIST, 0),
    ['l'] = OP_OF("LIST", NONE, op_collect, LIST, ABOVE_MARK),
    ['}'] = OP_OF("EMPTY_DICT", NONE, op_collect, DICT, 0),
    ['d'] = OP_OF("DICT", NONE, op_collect, DICT, ABOVE_MARK),
    [0x8f] = OP_OF("EMPTY_SET", NONE, op_collect, SET, 0),
    [0x91] = OP_OF("FROZENSET", NONE, op_collect, SET, ABOVE_MARK),
    ['a'] = OP_OF("APPEND", NONE, op_put_in, LIST, 1),
    ['e'] = OP_OF("APPENDS", NONE, op_put_in, LIST, ABOVE_MARK),
    ['s'] = OP_OF("SETITEM", NONE, op_put_in, DICT, 2),
    ['u'] = OP_OF("SETITEMS", NONE, op_put_in, DICT, ABOVE_MARK),
    [0x90] = OP_OF("ADDITEMS", NONE, op_put_in, SET, ABOVE_MARK),
    ['q'] = OP("BINPUT", U1, op_put),
    ['r'] = OP("LONG_BINPUT", U4, op_put),
    [0x94] = OP("MEMOIZE", NONE, op_put),
    ['h'] = OP("BINGET", U1, op_get),
    ['j'] = OP("LONG_BINGET", U4, op_get),
    ['c'] = OP("GLOBAL", LINES2, op_global),
    [0x93] = OP("STACK_GLOBAL", NONE, op_stack_global),
    ['R'] = OP("REDUCE", NONE, op_call),
    [0x81] = OP("NEWOBJ", NONE, op_call),
    ['b'] = OP("BUILD", NONE, op_build),
    ['Q'] = OP("BINPERSID", NONE, op_persistent),
};

/* --- reading ------------------------------------------------------------------------------------------------------ */

/* Copies the text up to the next newline. */
static bool read_line(struct machine *m, char line[CLASS_NAME_MAX])
{
    const unsigned char *end = memchr(m->p, '\n', (size_t)(m->end - m->p));
    size_t size = end ? (size_t)(end - m->p) : 0;

    if (!end || size >= CLASS_NAME_MAX || !text_is_utf8((const char *)m->p, size))
        return fail_damaged(m, "the name of a class is none");
    memcpy(line, m->p, size);
    line[size] = '\0';
    m->p = end + 1;
    return true;
}

static bool read_operand(struct machine *m, enum operand_kind kind, struct operand *ret)
{
    static const unsigned char sizes[] = {
        [OPERAND_U1] = 1,     [OPERAND_U2] = 2,     [OPERAND_U4] = 4,     [OPERAND_U8] = 8,
        [OPERAND_BYTES1] = 1, [OPERAND_BYTES4] = 4, [OPERAND_BYTES8] = 8, [OPERAND_LINES2] = 0,
    };
    size_t size = sizes[kind];

    if (kind == OPERAND_LINES2)
        return read_line(m, ret->module) && read_line(m, ret->name);
    if ((size_t)(m->end - m->p) < size)
        return fail_damaged(m, "it ends too early");
    ret->number = 0;
    for (size_t i = 0; i < size; i++)
        ret->number |= (uint64_t)m->p[i] << 8 * i;
    m->p += size;
    if (kind < OPERAND_BYTES1)
        return true;
    if ((uint64_t)(m->end - m->p) < ret->number)
        return fail_damaged(m, "it ends too early");
    ret->bytes = m->p;
    m->p += ret->number;
    return true;
}

static bool run(struct machine *m)
{
    const unsigned char *start = m->p;

    while (!m->stopped) {
        const struct opcode *opcode;

        if (m->p == m->end)
            return fail_damaged(m, "it ends too early");
        opcode = &opcodes[*m->p++];
        if (!opcode->run)
            return err_set(m->err, ERR_INVALID,
                           "data.pkl: byte 0x%02x at %zu is no opcode that torch.save writes; refused", m->p[-1],
                           (size_t)(m->p - 1 - start));
        if (!read_operand(m, opcode->operand, &m->operand) || !opcode->run(m, opcode))
            return false;
    }
    return true;
}

bool pickle_read(const void *data, size_t size, struct arena *arena, struct pickle_value **ret, struct err *err)
{
    struct machine machine = {
        .p = data, .end = (const unsigned char *)data + size, .size = size, .arena = arena, .err = err};
    bool ok = reserve(&machine.stack, &machine.stack_size, 0) ? run(&machine) : fail_memory(&machine);

    if (ok) {
        assert(machine.stack && machine.depth); /* op_stop() has seen to it */
        *ret = machine.stack[machine.depth - 1];
    }
    free(machine.stack);
    free(machine.memo);
    return ok;
}
