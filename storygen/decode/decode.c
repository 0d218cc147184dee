/* GPT-2 on a CPU: token ids in, logits out, next tokens drawn. One file, no library but libc.
 *
 * To write one token a network reads each of its weights once and does two sums with it. Memory is
 * slower than arithmetic, so three things make a step fast: weights of few bits, several rows
 * (other writers, or the tokens of a prompt) for each weight that is read, and no waiting between
 * the operations, some ten for each layer and each a few microseconds long.
 *
 * A ROW is one token at one position of one slot; a slot keeps the keys and values of one story. A
 * call takes rows of any mixture: the last tokens of eight stories, sixty tokens of a new prompt.
 * What is computed for a row never depends on the rows beside it, to the last bit: that is what
 * lets a seed give the same passage in a full house, and a kept prefix the same one as a reread
 * prompt.
 *
 * Contents: vectors, numbers, matrices, attention, the network, threads, sampling, the interface.
 * Vectors are those of GCC and Clang, 16 numbers wide, which they translate for any processor;
 * where an instruction has no such name (VNNI, bf16) it is asked for, and done by hand elsewhere.
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#define LANES 16 /* numbers of a vector, and outputs of a matrix that are kept interleaved */
#define BLOCKS 4 /* such blocks of outputs whose lines take turns */
#define LINE 64  /* bytes: what memory is read by */
#define NEXT (BLOCKS * LINE)
#define WIDE (LANES * BLOCKS)
#define GROUP 64 /* inputs that share a scale when they are rounded to 8 bits */
#define INLINE static inline __attribute__((always_inline))

/* ---- vectors ------------------------------------------------------------------------------- */

typedef float vec __attribute__((vector_size(64), may_alias));
typedef int32_t ints __attribute__((vector_size(64), may_alias));
typedef uint32_t words __attribute__((vector_size(64), may_alias));
typedef uint64_t longs __attribute__((vector_size(64), may_alias)); /* half as many */
typedef uint16_t halves __attribute__((vector_size(32), may_alias));
typedef uint8_t bytes __attribute__((vector_size(64), may_alias));

INLINE vec load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE void store(float *p, vec v) { memcpy(p, &v, sizeof v); }
INLINE vec all(float x) { return x - (vec){}; }
INLINE ints all_ints(int32_t x) { return x - (ints){}; }
INLINE vec as_vec(ints v)
{
    vec f;
    memcpy(&f, &v, sizeof f);
    return f;
}
INLINE vec choose(ints where, vec yes, vec no)
{
    ints a, b;
    memcpy(&a, &yes, sizeof a);
    memcpy(&b, &no, sizeof b);
    return as_vec((where & a) | (~where & b));
}
#ifdef __AVX512F__ /* one instruction each; the second where either is no number */
INLINE vec larger(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vec smaller(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
#else
INLINE vec larger(vec a, vec b) { return choose(a > b, a, b); }
INLINE vec smaller(vec a, vec b) { return choose(a < b, a, b); }
#endif
INLINE float sum(vec v)
{
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}
INLINE float largest(vec v)
{
    float most = v[0];
    for (int i = 1; i < LANES; i++) most = v[i] > most ? v[i] : most;
    return most;
}

/* Whether a comparison holds anywhere. */
INLINE bool any(ints where)
{
#ifdef __AVX512F__
    return _mm512_test_epi32_mask((__m512i)where, (__m512i)where) != 0;
#else
    int32_t found = 0;
    for (int i = 0; i < LANES; i++) found |= where[i];
    return found != 0;
#endif
}

/* ---- numbers ------------------------------------------------------------------------------- */

/* bf16 is the upper half of a float: eight bits of precision, the whole range. */
INLINE vec from_bf16(const uint16_t *p)
{
#ifdef __AVX512F__ /* GCC makes four instructions of the other */
    return as_vec((ints)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)) << 16);
#else
    halves h;
    memcpy(&h, p, sizeof h);
    return as_vec(__builtin_convertvector(h, ints) << 16);
#endif
}
INLINE float one_from_bf16(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
INLINE halves to_bf16(vec x) /* to the nearest, ties to even; NaN stays one */
{
    words bits, number = (words)(x == x);
    memcpy(&bits, &x, sizeof bits);
    bits = (number & (bits + 0x7fff + (bits >> 16 & 1))) | (~number & 0x7fc00000);
    return __builtin_convertvector(bits >> 16, halves);
}

/* e to the x: 2^n times a polynomial on what is left. Within 2e-7 of the truth, relatively. */
INLINE vec exponential(vec x)
{
    x = larger(smaller(x, all(88.0f)), all(-87.0f));
    vec shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to a whole number */
    vec n = shifted - 12582912.0f;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f; /* x - n log 2, in two parts */
    vec p = all(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * as_vec((__builtin_convertvector(n, ints) + 127) << 23);
}

enum activation { NONE, GELU_TANH, GELU_ERF, RELU };

INLINE vec activate(vec x, enum activation activation)
{
    if (activation == GELU_TANH) { /* x/2 (1 + tanh u) is x / (1 + e^-2u) */
        vec u = 0.7978845608f * (x + 0.044715f * x * x * x);
        return x / (1.0f + exponential(-2.0f * u));
    }
    if (activation == GELU_ERF)
        for (int i = 0; i < LANES; i++) x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.70710678f));
    if (activation == RELU) x = larger(x, all(0.0f));
    return x;
}

/* ---- matrices ------------------------------------------------------------------------------ */

/* Rows of the weight matrix (outputs) lie in blocks of 16, interleaved, so that one vector holds
 * the same input's weight of 16 outputs: their 16 sums grow side by side and nothing is ever added
 * up across a vector. A block is a row of lines, of 64 bytes each, by format:
 *
 * - F32: for each input, 16 floats
 * - BF16: for each two inputs, 16 pairs
 * - INT8: for each 64 inputs, 16 lines, of four inputs each, 16 times 4 bytes (weight + 128); and a
 *   line of 16 float scales
 * - INT4: for each 64 inputs, 8 lines, the low halves inputs 0..31, the high halves 32..63, in
 *   fours as above (weight + 8); and a line of 16 bf16 scales for each 32
 *
 * The lines of four blocks take turns, so that a product of one row, which does four at a time,
 * reads memory from one end to the other: nothing is faster. For INT8 and INT4 the row is rounded
 * to 8 bits too, with a scale for each 64 of it. Whole numbers are multiplied and added exactly. */
enum format { F32, BF16, INT8, INT4 };
enum { INT8_LINES = GROUP / 4 + 1, INT4_LINES = GROUP / 8 + 1 }; /* of a group */

struct matrix {
    int32_t format, n_in, n_out;
    const uint8_t *data;
    const float *bias; /* n_out, to the next 64 */
};

/* Rows as a matrix wants them. */
struct input {
    const float *x;       /* (rows, stride) */
    const uint16_t *bf16; /* (rows, stride) */
    const int8_t *q;      /* (rows, stride), */
    const float *scale;   /* (rows, stride / 64), */
    const int32_t *sums;  /* (rows, stride / 32): of q */
    int stride;           /* a multiple of 64 */
};

static int round_up(int n, int to) { return (n + to - 1) / to * to; }

static int lines(const struct matrix *m)
{
    int groups = (m->n_in + GROUP - 1) / GROUP;
    switch (m->format) {
    case F32: return m->n_in;
    case BF16: return (m->n_in + 1) / 2;
    case INT8: return groups * INT8_LINES;
    default: return groups * INT4_LINES;
    }
}

/* The first line of a block of outputs; the next is NEXT bytes further. */
static const uint8_t *block_at(const struct matrix *m, int block)
{
    return m->data + (size_t)(block / BLOCKS) * lines(m) * NEXT + block % BLOCKS * LINE;
}

/* sums + four products in each lane: w (16 x 4 bytes from 0 to 255) times the same four x. */
INLINE ints dot4(ints sums, bytes w, const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, 4);
#if defined(__AVX512VNNI__)
    return (ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)w, _mm512_set1_epi32(four));
#elif defined(__AVX2__) /* as pairs of 16 bits: bytes 0 and 2, then 1 and 3 */
    __m256i even_x = _mm256_set1_epi32((uint16_t)x[0] | (uint32_t)(uint16_t)x[2] << 16);
    __m256i odd_x = _mm256_set1_epi32((uint16_t)x[1] | (uint32_t)(uint16_t)x[3] << 16);
    union {
        ints v;
        __m256i half[2];
    } s = {.v = sums}, u;
    memcpy(&u, &w, sizeof u);
    for (int i = 0; i < 2; i++) {
        __m256i even = _mm256_and_si256(u.half[i], _mm256_set1_epi32(0x00ff00ff));
        __m256i odd = _mm256_srli_epi16(u.half[i], 8);
        s.half[i] = _mm256_add_epi32(s.half[i], _mm256_madd_epi16(even, even_x));
        s.half[i] = _mm256_add_epi32(s.half[i], _mm256_madd_epi16(odd, odd_x));
    }
    return s.v;
#else
    ints v;
    memcpy(&v, &w, sizeof v);
    for (int i = 0; i < 4; i++) sums += (v >> 8 * i & 255) * x[i];
    return sums;
#endif
}

/* Memory is read from one end to the other: a compiler that takes a load out of its turn, so as not
 * to wait for it, misleads the processor, which fetches ahead what is read in a row: a tenth of a
 * step. */
INLINE void in_order(void) { __asm__ volatile("" ::: "memory"); }

/* acc[r][b] of R rows and B blocks: the sums of all products. R and B are constants wherever this
 * is called, so the loops over them vanish and acc lives in registers. */
#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)

INLINE void multiply_f32(vec (*acc)[4], const int R, const int B, const struct matrix *m,
                         const uint8_t *w, const struct input *in, int row)
{
    const float *x = in->x + (size_t)row * in->stride;
    for (int k = 0; k < m->n_in; k++, w += NEXT) {
        in_order();
        vec weight[4];
        EACH(b, B) weight[b] = load((const float *)w + b * LANES);
        EACH(r, R)
            EACH(b, B) acc[r][b] += weight[b] * x[r * in->stride + k];
    }
}

INLINE void multiply_bf16(vec (*acc)[4], const int R, const int B, const struct matrix *m,
                          const uint8_t *w, const struct input *in, int row)
{
    const uint16_t *x = in->bf16 + (size_t)row * in->stride;
    for (int k = 0; k < m->n_in; k += 2, w += NEXT) {
        in_order();
        ints pair[4];
        EACH(b, B) memcpy(&pair[b], w + b * LINE, sizeof(ints));
        EACH(r, R) {
            int32_t both;
            memcpy(&both, x + r * in->stride + k, 4);
            EACH(b, B) {
#ifdef __AVX512BF16__
                acc[r][b] = (vec)_mm512_dpbf16_ps((__m512)acc[r][b], (__m512bh)pair[b],
                                                  (__m512bh)_mm512_set1_epi32(both));
#else
                acc[r][b] += as_vec(pair[b] << 16) * one_from_bf16(both & 0xffff);
                acc[r][b] +=
                    as_vec(pair[b] & (int32_t)0xffff0000) * one_from_bf16((uint32_t)both >> 16);
#endif
            }
        }
    }
}

INLINE void multiply_int8(vec (*acc)[4], const int R, const int B, const struct matrix *m,
                          const uint8_t *w, const struct input *in, int row)
{
    const int8_t *q = in->q + (size_t)row * in->stride;
    const float *scale = in->scale + (size_t)row * (in->stride / GROUP);
    const int32_t *of_q = in->sums + (size_t)row * (in->stride / GROUP * 2);
    for (int g = 0; g * GROUP < m->n_in; g++, w += INT8_LINES * NEXT, q += GROUP) {
        ints sums[6][4];
        EACH(r, R) { /* weights are 128 too large */
            const int32_t *of = of_q + r * (in->stride / GROUP * 2) + 2 * g;
            EACH(b, B) sums[r][b] = all_ints(-128 * (of[0] + of[1]));
        }
        for (int k = 0; k < GROUP; k += 4) {
            in_order();
            bytes weight[4];
            EACH(b, B) memcpy(&weight[b], w + k / 4 * NEXT + b * LINE, sizeof(bytes));
            EACH(r, R)
                EACH(b, B) sums[r][b] = dot4(sums[r][b], weight[b], q + r * in->stride + k);
        }
        EACH(b, B) {
            vec of_weights = load((const float *)(w + GROUP / 4 * NEXT + b * LINE));
            EACH(r, R)
                acc[r][b] += __builtin_convertvector(sums[r][b], vec) *
                             (of_weights * scale[r * (in->stride / GROUP) + g]);
        }
    }
}

INLINE void multiply_int4(vec (*acc)[4], const int R, const int B, const struct matrix *m,
                          const uint8_t *w, const struct input *in, int row)
{
    const int8_t *q = in->q + (size_t)row * in->stride;
    const float *scale = in->scale + (size_t)row * (in->stride / GROUP);
    const int32_t *of_q = in->sums + (size_t)row * (in->stride / GROUP * 2);
    for (int g = 0; g * GROUP < m->n_in; g++, w += INT4_LINES * NEXT, q += GROUP)
        EACH(half, 2) {
            ints sums[6][4];
            EACH(r, R) {
                int32_t of = of_q[r * (in->stride / GROUP * 2) + 2 * g + half];
                EACH(b, B) sums[r][b] = all_ints(-8 * of);
            }
            for (int k = 0; k < GROUP / 2; k += 4) {
                in_order();
                bytes weight[4];
                EACH(b, B) {
                    ints both;
                    memcpy(&both, w + k / 4 * NEXT + b * LINE, sizeof both);
                    weight[b] = (bytes)((half ? both >> 4 : both) & 0x0f0f0f0f);
                }
                EACH(r, R)
                    EACH(b, B)
                        sums[r][b] = dot4(sums[r][b], weight[b],
                                          q + r * in->stride + half * (GROUP / 2) + k);
            }
            EACH(b, B) {
                const uint16_t *scales = (const uint16_t *)(w + GROUP / 8 * NEXT + b * LINE);
                vec of_weights = from_bf16(scales + half * LANES);
                EACH(r, R)
                    acc[r][b] += __builtin_convertvector(sums[r][b], vec) *
                                 (of_weights * scale[r * (in->stride / GROUP) + g]);
            }
        }
}

/* Where results go: y = activation(x W + bias), or y += x W + bias. */
struct output {
    float *y;
    int stride;
    enum activation activation;
    bool add;
};

INLINE void tile(const int R, const int B, const struct matrix *m, const struct input *in,
                 const struct output *out, int row, int block)
{
    const uint8_t *w = block_at(m, block);
    vec acc[6][4];
    EACH(r, R)
        EACH(b, B) acc[r][b] = all(0.0f);
    switch (m->format) {
    case F32: multiply_f32(acc, R, B, m, w, in, row); break;
    case BF16: multiply_bf16(acc, R, B, m, w, in, row); break;
    case INT8: multiply_int8(acc, R, B, m, w, in, row); break;
    default: multiply_int4(acc, R, B, m, w, in, row);
    }
    EACH(r, R)
        EACH(b, B) {
            float *y = out->y + (size_t)(row + r) * out->stride + (block + b) * LANES;
            vec result = acc[r][b] + load(m->bias + (block + b) * LANES);
            if (out->add)
                result += load(y);
            else
                result = activate(result, out->activation);
            store(y, result);
        }
}

/* Blocks first..last-1 of a product for all rows. Four blocks lie side by side in memory and are
 * taken together, so that weights are read in the order in which they lie (two at a time, eight
 * rows of GPT-2 took half as long again); the sums of four rows are as many as there are registers
 * for. */
static void multiply(const struct matrix *m, const struct input *in, const struct output *out,
                     int n_rows, int first, int last)
{
    for (int block = first; block < last;) {
        int wide = last - block < 4 || block % 4 ? 1 : 4;
        for (int row = 0; row < n_rows;) {
            int rows = n_rows - row;
            if (wide == 4) {
                if (rows >= 4)
                    tile(4, 4, m, in, out, row, block), row += 4;
                else if (rows == 3)
                    tile(3, 4, m, in, out, row, block), row += 3;
                else if (rows == 2)
                    tile(2, 4, m, in, out, row, block), row += 2;
                else
                    tile(1, 4, m, in, out, row, block), row += 1;
            } else {
                if (rows >= 6)
                    tile(6, 1, m, in, out, row, block), row += 6;
                else if (rows >= 2)
                    tile(2, 1, m, in, out, row, block), row += 2;
                else
                    tile(1, 1, m, in, out, row, block), row += 1;
            }
        }
        block += wide;
    }
}

/* Row n of a matrix as floats: an embedding looked up in the output head that shares its weights.
 */
static void look_up(const struct matrix *m, int n, float *x)
{
    const uint8_t *block = block_at(m, n / LANES);
    int lane = n % LANES;
    for (int k = 0; k < m->n_in; k++) {
        int in_group = k % GROUP, of_fours = lane * 4 + k % 4;
        const uint8_t *group;
        switch (m->format) {
        case F32: x[k] = ((const float *)(block + k * NEXT))[lane]; break;
        case BF16:
            x[k] = one_from_bf16(((const uint16_t *)(block + k / 2 * NEXT))[lane * 2 + k % 2]);
            break;
        case INT8:
            group = block + k / GROUP * INT8_LINES * NEXT;
            x[k] = (group[in_group / 4 * NEXT + of_fours] - 128) *
                   ((const float *)(group + GROUP / 4 * NEXT))[lane];
            break;
        default:
            group = block + k / GROUP * INT4_LINES * NEXT;
            int both = group[in_group % 32 / 4 * NEXT + of_fours];
            const uint16_t *scales = (const uint16_t *)(group + GROUP / 8 * NEXT);
            x[k] = ((in_group < 32 ? both & 15 : both >> 4) - 8) *
                   one_from_bf16(scales[in_group / 32 * LANES + lane]);
        }
    }
}

/* Round x (n) to 8 bits, each group of 64 by its own largest number. */
static void quantize(const float *x, int n, int8_t *q, float *scale, int32_t *sums)
{
    for (int g = 0; g < n / GROUP; g++, x += GROUP, q += GROUP) {
        vec most = all(0.0f);
        for (int i = 0; i < GROUP; i += LANES) {
            vec v = load(x + i);
            most = larger(most, larger(v, -v));
        }
        float top = largest(most), inverse = top > 0 ? 127.0f / top : 0.0f;
        scale[g] = top / 127.0f;
        for (int half = 0; half < 2; half++) {
            ints total = all_ints(0);
            for (int i = half * 32; i < half * 32 + 32; i += LANES) {
                vec shifted = load(x + i) * inverse + 12582912.0f; /* rounds, see exponential() */
                ints whole = __builtin_convertvector(shifted - 12582912.0f, ints);
                typedef int8_t small __attribute__((vector_size(16)));
                small packed = __builtin_convertvector(whole, small);
                memcpy(q + i, &packed, sizeof packed);
                total += whole;
            }
            int32_t of = 0;
            for (int i = 0; i < LANES; i++) of += total[i];
            sums[2 * g + half] = of;
        }
    }
}

/* ---- the network --------------------------------------------------------------------------- */

struct layer {
    const float *ln_1_weight, *ln_1_bias, *ln_2_weight, *ln_2_bias;
    struct matrix c_attn, attn_proj, c_fc, mlp_proj;
};

struct model { /* as native.py fills it in; layer norms and positions are floats */
    int32_t n_layer, n_head, n_embd, n_inner, vocab_size, block_size, activation;
    int32_t cache_bf16; /* else floats */
    float layer_norm_epsilon;
    const struct matrix *embedding; /* the head itself where they share weights */
    struct matrix lm_head;
    const float *wpe; /* (block_size, n_embd) */
    const float *ln_f_weight, *ln_f_bias;
    const struct layer *layers;
};

struct adjustment { /* what is added to a token's logit; -INFINITY forbids it */
    double added;
    int64_t id;
};

struct choice { /* how a row's next token is drawn, see sampling.py */
    double temperature, top_p, min_p, repetition_penalty;
    int64_t seed, position;
    int32_t top_k, n_context, n_adjustments;
    const int32_t *context;
    const struct adjustment *adjustments;
};

struct batch {
    int32_t n_rows, n_out;
    const int32_t *slots, *positions, *tokens; /* (n_rows) each; rows of one slot in their order */
    const int32_t *out;                        /* (n_out) the rows whose logits are wanted */
    float *logits;                             /* (n_out, vocab_size to the next 64) */
    int32_t n_tokens;                          /* of the tokenizer: a vocabulary may be padded */
    const struct choice *choices;              /* (n_out) or NULL: nothing is drawn */
    int32_t *drawn;                            /* (n_out) -1 where logits are no numbers */
};

enum { MAX_THREADS = 64 };
struct team;

/* Numbers on their way through the network, and what each slot remembers. Rows are `wide` apart in
 * the buffers that every operation shares; all are zero where nothing was ever written. */
struct session {
    const struct model *model;
    struct team *team;
    int max_rows, wide, head_size, head_wide, positions; /* sizes in memory */
    uint8_t *keys, *values;
    float *x, *qkv, *mix, *inner, *scores; /* residual stream, and what the operations give */
    float *y, *scale;                      /* what matrices are given: floats, or bf16, or 8 bits */
    uint16_t *bf16;
    int8_t *q;
    int32_t *sums;
    double *candidates; /* logits that top-p looks at */
    uint8_t *seen;
};

/* Two threads that need all rows in another form either share the work, and meet, or do all of it
 * themselves, each in memory of its own: for one or two rows that is sooner done. */
struct worker {
    struct session *s;
    const struct batch *batch;
    int id, n;          /* which of how many */
    uint64_t base, met; /* see meet() */
    int64_t waited;     /* nanoseconds, beyond what is usual */
};
static void meet(struct worker *w);

static int part(int n, int id, int of) { return (int)((int64_t)n * id / of); }

/* Keys lie in blocks of 16 positions, interleaved as the outputs of a matrix are, so that scores of
 * 16 positions grow side by side; values lie position by position. */
static size_t key_at(const struct session *s, int slot, int layer, int head, int position)
{
    size_t before = ((size_t)slot * s->model->n_layer + layer) * s->model->n_head + head;
    return (before * s->positions + position / LANES * LANES) * s->head_size + position % LANES;
}
static size_t value_at(const struct session *s, int slot, int layer, int head, int position)
{
    size_t before = ((size_t)slot * s->model->n_layer + layer) * s->model->n_head + head;
    return (before * s->positions + position) * s->head_wide;
}

static void remember(const struct session *s, int slot, int layer, int head, int position,
                     const float *key, const float *value)
{
    size_t k = key_at(s, slot, layer, head, position), v = value_at(s, slot, layer, head, position);
    for (int d = 0; d < s->head_size; d += LANES) {
        int lanes = s->head_size - d < LANES ? s->head_size - d : LANES;
        if (s->model->cache_bf16) {
            halves of_key = to_bf16(load(key + d)), of_value = to_bf16(load(value + d));
            for (int i = 0; i < lanes; i++) ((uint16_t *)s->keys)[k + (d + i) * LANES] = of_key[i];
            memcpy((uint16_t *)s->values + v + d, &of_value, sizeof of_value);
        } else {
            for (int i = 0; i < lanes; i++) ((float *)s->keys)[k + (d + i) * LANES] = key[d + i];
            store((float *)s->values + v + d, load(value + d));
        }
    }
}

INLINE vec cached(const void *cache, size_t at, bool bf16)
{
    return bf16 ? from_bf16((const uint16_t *)cache + at) : load((const float *)cache + at);
}

/* Have memory brought near while something else is computed. */
INLINE void fetch(const uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size; i += LINE) __builtin_prefetch(p + i, 0, 2);
}

/* y (head_size) = softmax(query . keys / sqrt(head_size)) . values, over positions 0..position.
 * Keys and values are many short reads, before each of which the processor waits: where no row
 * before this one had them, values are fetched beside the scores, and beside the values the keys of
 * the next head. */
INLINE void attend(const struct session *s, const bool bf16, int slot, int layer, int head,
                   int position, bool far, const float *query, float *scores, float *y)
{
    size_t number = bf16 ? 2 : 4, key = s->head_size * number, value = s->head_wide * number;
    const uint8_t *values = s->values + value_at(s, slot, layer, head, 0) * number;
    const uint8_t *next_keys = s->keys + key_at(s, slot, layer, head + 1, 0) * number;
    float scale = 1.0f / sqrtf((float)s->head_size);
    vec most = all(-INFINITY);
    const ints lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int p = 0; p <= position; p += LANES) {
        size_t k = key_at(s, slot, layer, head, p);
        if (far) fetch(values + p * value, LANES * value);
        vec even = all(0.0f), odd = all(0.0f);
        int d = 0;
        for (; d + 1 < s->head_size; d += 2) {
            even += cached(s->keys, k + d * LANES, bf16) * query[d];
            odd += cached(s->keys, k + (d + 1) * LANES, bf16) * query[d + 1];
        }
        if (d < s->head_size) even += cached(s->keys, k + d * LANES, bf16) * query[d];
        vec score = choose(lanes + p <= position, (even + odd) * scale, all(-INFINITY));
        store(scores + p, score);
        most = larger(most, score);
    }
    vec top = all(largest(most)), total = all(0.0f);
    for (int p = 0; p <= position; p += LANES) {
        /* What is not there is e^-87 / sum after exponential()'s floor: nothing. Yet say 0. */
        vec score = load(scores + p);
        vec weight = choose(lanes + p <= position, exponential(score - top), all(0.0f));
        store(scores + p, weight);
        total += weight;
    }
    float share = 1.0f / sum(total);
    for (int d = 0; d < s->head_wide; d += 4 * LANES) {
        int vectors = (s->head_wide - d) / LANES < 4 ? (s->head_wide - d) / LANES : 4;
        vec mix[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
        size_t v = value_at(s, slot, layer, head, 0) + d;
        if (vectors == 4)
            for (int p = 0; p <= position; p++, v += s->head_wide) {
                if (far) fetch(next_keys + p * key, key);
                EACH(i, 4) mix[i] += cached(s->values, v + i * LANES, bf16) * scores[p];
            }
        else
            for (int p = 0; p <= position; p++, v += s->head_wide)
                for (int i = 0; i < vectors; i++)
                    mix[i] += cached(s->values, v + i * LANES, bf16) * scores[p];
        for (int i = 0; i < vectors; i++)
            for (int j = 0; j < LANES && d + i * LANES + j < s->head_size; j++)
                y[d + i * LANES + j] = mix[i][j] * share;
    }
}

static void layer_norm(const float *x, int n, float epsilon, const float *weight, const float *bias,
                       float *y)
{
    vec total = all(0.0f), squares = all(0.0f);
    const ints lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int i = 0; i < n; i += LANES) total += load(x + i); /* zeros follow the n-th */
    vec mean = all(sum(total) / (float)n);
    for (int i = 0; i < n; i += LANES) {
        vec d = choose(lanes + i < n, load(x + i) - mean, all(0.0f));
        squares += d * d;
    }
    vec scale = all(1.0f / sqrtf(sum(squares) / (float)n + epsilon));
    for (int i = 0; i < n; i += LANES)
        store(y + i, (load(x + i) - mean) * scale * load(weight + i) + load(bias + i));
}

/* Rows x (n_rows, stride) in the form that matrix m multiplies, after a layer norm if weight is
 * given. Few rows are prepared by every thread for itself, in its own part of the buffers. */
static struct input prepare(struct worker *w, const struct matrix *m, float *x, int stride,
                            const float *weight, const float *bias, int n_rows)
{
    struct session *s = w->s;
    bool own = n_rows <= 2;
    size_t at = own ? (size_t)(s->max_rows + 2 * w->id) * s->wide : 0;
    int first = own ? 0 : part(n_rows, w->id, w->n),
        last = own ? n_rows : part(n_rows, w->id + 1, w->n);
    struct input in = {0};
    float *y = x;
    in.stride = stride;
    if (weight) y = s->y + at;
    int n = round_up(m->n_in, GROUP);
    for (int row = first; row < last; row++) {
        float *of = y + (size_t)row * stride;
        if (weight)
            layer_norm(x + (size_t)row * stride, m->n_in, s->model->layer_norm_epsilon, weight,
                       bias, of);
        if (m->format == BF16)
            for (int i = 0; i < n; i += LANES) {
                halves h = to_bf16(load(of + i));
                memcpy(s->bf16 + at + (size_t)row * stride + i, &h, sizeof h);
            }
        if (m->format >= INT8)
            quantize(of, n, s->q + at + (size_t)row * stride,
                     s->scale + (at + (size_t)row * stride) / GROUP,
                     s->sums + (at + (size_t)row * stride) / GROUP * 2);
    }
    in.x = y, in.bf16 = s->bf16 + at, in.q = s->q + at;
    in.scale = s->scale + at / GROUP, in.sums = s->sums + at / GROUP * 2;
    if (!own) meet(w);
    return in;
}

static void product(struct worker *w, const struct matrix *m, struct input in, float *y, int stride,
                    enum activation activation, bool add, int n_rows)
{
    struct output out = {y, stride, activation, add};
    /* In shares of four blocks, or of two where those would be too unequal. */
    int wide = round_up(m->n_out, WIDE) / LANES, share = wide >= 32 * w->n ? 4 : 2;
    multiply(m, &in, &out, n_rows, share * part(wide / share, w->id, w->n),
             share * part(wide / share, w->id + 1, w->n));
    meet(w);
}

/* ---- sampling ------------------------------------------------------------------------------ */

/* The same as sampling.py, in the same order and in doubles; there is told why. */
#define GOLDEN 0x9E3779B97F4A7C15u

static uint64_t splitmix64(uint64_t state, uint64_t n)
{
    uint64_t z = state + (n + 1) * GOLDEN;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static double gumbel(int64_t seed, int64_t position, int32_t id)
{
    uint64_t bits = splitmix64(splitmix64((uint64_t)seed, (uint64_t)position), (uint64_t)id);
    double u = ((double)(bits >> 12) + 0.5) * 0x1p-52;
    return -log(-log(u));
}

static int more_probable(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* In which of some steps below 0 a logit lies; the last one has all that is further down. */
static int step_of(double logit, int steps)
{
    double below = logit * -64;
    return below < steps ? (int)below : steps - 1;
}

/* The k-th largest of n floats: a heap keeps the k largest so far, the least of them on top. */
static float kth_largest(const float *x, int n, int k, float *heap)
{
    int size = 0;
    for (int i = 0; i < n; i++) {
        if (size == k && i + LANES <= n && !any(load(x + i) > heap[0])) {
            i += LANES - 1; /* 16 that are all too small */
            continue;
        }
        if (size == k && x[i] <= heap[0]) continue;
        int at;
        if (size < k) { /* up from the end */
            for (at = size++; at > 0 && heap[(at - 1) / 2] > x[i]; at = (at - 1) / 2)
                heap[at] = heap[(at - 1) / 2];
        } else { /* down from the top, in the place of the least */
            for (at = 0;;) {
                int child = 2 * at + 1;
                if (child >= k) break;
                if (child + 1 < k && heap[child + 1] < heap[child]) child++;
                if (heap[child] >= x[i]) break;
                heap[at] = heap[child];
                at = child;
            }
        }
        heap[at] = x[i];
    }
    return heap[0];
}

/* How far below the most probable one (0) a token of n may be that top-p leaves: the most probable
 * are left until their mass reaches p. Sums of mass by steps of a logit's 64th say in which step
 * that is; only what lies there is put in order. Changes the order of c. */
static double nucleus(double *c, int n, double p)
{
    enum { STEPS = 4096 };
    double mass[STEPS] = {0}, total = 0, before = 0;
    for (int i = 0; i < n; i++) {
        double e = exp(c[i]);
        total += e, mass[step_of(c[i], STEPS)] += e;
    }
    int step = 0, here = 0, kept = 0;
    for (; step < STEPS - 1 && before + mass[step] / total < p; step++)
        before += mass[step] / total;
    for (int i = 0; i < n; i++)
        if (step_of(c[i], STEPS) == step) {
            double found = c[i];
            c[i] = c[here], c[here++] = found;
        }
    qsort(c, (size_t)here, sizeof *c, more_probable);
    while (kept < here && before < p) before += exp(c[kept++]) / total;
    return kept ? c[kept - 1] : 0;
}

/* The largest of n logits. `finite` says whether all are numbers, none of them infinite. */
static float largest_of(const float *x, int n, bool *finite)
{
    vec most = all(-INFINITY), nothing = all(0.0f); /* NaN where something is not finite */
    int whole = n / LANES * LANES;
    for (int i = 0; i < whole; i += LANES) {
        vec v = load(x + i);
        most = larger(most, v);
        nothing += v * 0.0f;
    }
    float top = largest(most), rest = sum(nothing);
    for (int i = whole; i < n; i++) {
        top = x[i] > top ? x[i] : top;
        rest += x[i] * 0.0f;
    }
    *finite = rest == 0;
    return top;
}

/* Whether one of 16 tokens might have more luck than `most`, given where their splitmix64() begins
 * and how far below the most probable they are. Noise above t needs a 1 - u below e^-t, and neither
 * takes a logarithm: of a whole vocabulary a few dozen are left to be looked at closely. */
INLINE bool may_win(longs z[2], vec logits, vec most)
{
    float u[LANES];
    for (int half = 0; half < 2; half++) {
        longs bits = z[half];
        bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9u;
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EBu;
        bits = ~(bits ^ bits >> 31) >> 40;
        for (int i = 0; i < LANES / 2; i++) /* no more than 1 - u */
            u[half * LANES / 2 + i] = (float)(int32_t)bits[i] * 0x1p-24f;
    }
    vec bound = exponential(logits - most) * 1.001f; /* these are no doubles */
    return any(~(load(u) >= bound));
}

/* What is left of n tokens when all filters but min-p have said below which logit none is. */
struct left {
    float least;  /* as it was computed */
    double floor; /* less `top`, divided by the temperature */
};

/* The one with the largest sum of logit and noise; `best` is the most probable, of logit `top`. */
static int32_t with_most_luck(const float *logits, int n, float top, int32_t best,
                              struct left left, const struct choice *choice)
{
    uint64_t state = splitmix64((uint64_t)choice->seed, (uint64_t)choice->position);
    float inverse = (float)(1 / choice->temperature);
    double most = gumbel(choice->seed, choice->position, best);
    int32_t chosen = best;
    longs z[2];
    for (int i = 0; i < LANES; i++) z[i / 8][i % 8] = state + (uint64_t)(i + 1) * GOLDEN;
    for (int i = 0; i < n; i += LANES, z[0] += LANES * GOLDEN, z[1] += LANES * GOLDEN) {
        int stop = i + LANES < n ? i + LANES : n;
        if (stop == i + LANES) {
            vec x = load(logits + i);
            if (!any(x >= left.least) || !may_win(z, (x - top) * inverse, all((float)most)))
                continue;
        }
        for (int id = i; id < stop; id++) {
            double logit = ((double)logits[id] - top) / choice->temperature;
            if (logits[id] < left.least || logit < left.floor) continue;
            if (choice->min_p > 0 && exp(logit) < choice->min_p) continue;
            double luck = logit + gumbel(choice->seed, choice->position, id);
            if (luck > most || (luck == most && id < chosen)) most = luck, chosen = id;
        }
    }
    return chosen;
}

/* The next token of a row, or -1 where its logits are no numbers. Changes the logits. */
static int32_t draw(struct session *s, int thread, float *logits, int n,
                    const struct choice *choice)
{
    double *c = s->candidates + (size_t)thread * s->model->vocab_size;
    uint8_t *seen = s->seen + (size_t)thread * s->model->vocab_size;
    bool finite, changed = choice->repetition_penalty != 1.0 || choice->n_adjustments;
    float least = -INFINITY, top = largest_of(logits, n, &finite);
    if (!finite) return -1;
    if (choice->repetition_penalty != 1.0) {
        for (int i = 0; i < choice->n_context; i++) {
            int32_t id = choice->context[i];
            float *x = &logits[id];
            if (!seen[id]++)
                *x = (float)(*x > 0 ? *x / choice->repetition_penalty
                                    : *x * choice->repetition_penalty);
        }
        for (int i = 0; i < choice->n_context; i++) seen[choice->context[i]] = 0;
    }
    for (int i = 0; i < choice->n_adjustments; i++) {
        float *x = &logits[choice->adjustments[i].id];
        *x = (float)(*x + choice->adjustments[i].added);
    }
    if (changed) top = largest_of(logits, n, &finite); /* what is forbidden is not */
    int best = 0;
    while (best + LANES <= n && !any(load(logits + best) == top)) best += LANES;
    while (logits[best] != top) best++;
    if (choice->temperature == 0) return best;

    struct left left = {-INFINITY, -INFINITY};
    if (choice->top_k > 0 && choice->top_k < n)
        left.least = kth_largest(logits, n, choice->top_k, (float *)c);
    if (choice->top_p < 1) {
        int kept = 0;
        for (int i = 0; i < n; i++) {
            if (i + LANES <= n && !any(load(logits + i) >= left.least))
                i += LANES - 1;
            else if (logits[i] >= left.least)
                c[kept++] = ((double)logits[i] - top) / choice->temperature;
        }
        left.floor = nucleus(c, kept, choice->top_p);
    }
    return with_most_luck(logits, n, top, best, left, choice);
}

/* One forward pass, by each thread of a team for its part. */
static void forward(struct worker *w)
{
    struct session *s = w->s;
    const struct model *m = s->model;
    const struct batch *b = w->batch;
    int C = m->n_embd, n = b->n_rows, wide = round_up(C, GROUP), three = round_up(3 * C, GROUP);
    int inner = round_up(m->n_inner, GROUP);

    for (int row = part(n, w->id, w->n); row < part(n, w->id + 1, w->n); row++) {
        float *x = s->x + (size_t)row * wide;
        look_up(m->embedding, b->tokens[row], x);
        for (int i = 0; i < C; i++) x[i] += m->wpe[(size_t)b->positions[row] * C + i];
    }
    meet(w);
    for (int l = 0; l < m->n_layer; l++) {
        const struct layer *layer = &m->layers[l];
        struct input in =
            prepare(w, &layer->c_attn, s->x, wide, layer->ln_1_weight, layer->ln_1_bias, n);
        product(w, &layer->c_attn, in, s->qkv, three, NONE, false, n);

        /* A head of a row each. Keys and values of the head are stored first, of all rows: later
         * tokens of the same slot look at them. */
        int heads = m->n_head;
        for (int h = part(heads, w->id, w->n); h < part(heads, w->id + 1, w->n); h++) {
            for (int row = 0; row < n; row++) {
                const float *qkv = s->qkv + (size_t)row * three + h * s->head_size;
                remember(s, b->slots[row], l, h, b->positions[row], qkv + C, qkv + 2 * C);
            }
            for (int row = 0; row < n; row++) {
                const float *query = s->qkv + (size_t)row * three + h * s->head_size;
                float *y = s->mix + (size_t)row * wide + h * s->head_size;
                float *scores = s->scores + (size_t)w->id * s->positions;
                int slot = b->slots[row], position = b->positions[row];
                bool far = row == 0 || slot != b->slots[row - 1];
                if (m->cache_bf16)
                    attend(s, true, slot, l, h, position, far, query, scores, y);
                else
                    attend(s, false, slot, l, h, position, far, query, scores, y);
            }
        }
        meet(w);
        in = prepare(w, &layer->attn_proj, s->mix, wide, NULL, NULL, n);
        product(w, &layer->attn_proj, in, s->x, wide, NONE, true, n);
        in = prepare(w, &layer->c_fc, s->x, wide, layer->ln_2_weight, layer->ln_2_bias, n);
        product(w, &layer->c_fc, in, s->inner, inner, m->activation, false, n);
        in = prepare(w, &layer->mlp_proj, s->inner, inner, NULL, NULL, n);
        product(w, &layer->mlp_proj, in, s->x, wide, NONE, true, n);
    }

    /* The rows that are asked for, moved together. What a thread does after the last meeting must
     * not look at the batch: it may be gone. */
    bool wanted = b->n_out > 0, drawing = b->choices != NULL;
    for (int i = part(b->n_out, w->id, w->n); i < part(b->n_out, w->id + 1, w->n); i++)
        memcpy(s->mix + (size_t)i * wide, s->x + (size_t)b->out[i] * wide, sizeof(float) * wide);
    meet(w);
    if (!wanted) return;
    struct input last =
        prepare(w, &m->lm_head, s->mix, wide, m->ln_f_weight, m->ln_f_bias, b->n_out);
    int vocab = round_up(m->vocab_size, WIDE);
    product(w, &m->lm_head, last, b->logits, vocab, NONE, false, b->n_out);
    if (!drawing) return;
    for (int i = w->id; i < b->n_out; i += w->n)
        b->drawn[i] = draw(s, w->id, b->logits + (size_t)i * vocab, b->n_tokens, &b->choices[i]);
    meet(w);
}

/* ---- threads ------------------------------------------------------------------------------- */

/* Threads of a team run forward() side by side and meet after each operation, hundreds of times for
 * a token, so they wait by looking again and again rather than by sleeping. Where another program
 * wants their core this is slow: a thread that was put aside for 4 ms lets the others wait as long.
 * A team that waited for a quarter of a step goes on with one thread, and tries again after a
 * while, which doubles as long as that fails. */
enum { LOOKS = 1024, SHORTEST_PAUSE_NS = 20000000, LONGEST_PAUSE_NS = 1000000000 };

struct team {
    int n;
    pthread_t threads[MAX_THREADS];
    pthread_mutex_t lock;
    pthread_cond_t called;
    _Atomic uint64_t call;    /* counts steps, times 256, plus how many threads take part; 0 ends */
    _Atomic uint64_t arrived; /* at all meetings so far */
    _Atomic int asleep;
    struct session *s;
    const struct batch *batch;
    uint64_t base; /* arrived, when the step began */
    int64_t alone_until, pause;
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void breathe(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Wait until all threads of the step are here. */
static void meet(struct worker *w)
{
    if (w->n == 1) return;
    struct team *t = w->s->team;
    uint64_t target = w->base + ++w->met * (uint64_t)w->n;
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) + 1 >= target) return;
    int looks = 0;
    while (atomic_load_explicit(&t->arrived, memory_order_acquire) < target && looks < LOOKS) {
        breathe();
        looks++;
    }
    if (looks < LOOKS) return; /* as nearly always */
    int64_t began = now_ns();
    while (atomic_load_explicit(&t->arrived, memory_order_acquire) < target) sched_yield();
    w->waited += now_ns() - began;
}

static int64_t take_part(struct team *t, int id, int n)
{
    struct worker w = {.s = t->s, .batch = t->batch, .id = id, .n = n, .base = t->base};
    forward(&w);
    return w.waited;
}

struct start {
    struct team *team;
    int id;
};

static void *worker_main(void *argument)
{
    struct start start = *(struct start *)argument;
    free(argument);
    struct team *t = start.team;
    uint64_t seen = 256;
    for (;;) {
        uint64_t call;
        for (int looks = 0; (call = atomic_load_explicit(&t->call, memory_order_acquire)) == seen;
             looks++) {
            breathe();
            if (looks < 4 * LOOKS) continue; /* some 0.1 ms: the next token comes sooner */
            pthread_mutex_lock(&t->lock);
            atomic_fetch_add(&t->asleep, 1);
            while (atomic_load(&t->call) == seen) pthread_cond_wait(&t->called, &t->lock);
            atomic_fetch_sub(&t->asleep, 1);
            pthread_mutex_unlock(&t->lock);
        }
        if (call == 0) return NULL;
        seen = call;
        if (start.id < (int)(call % 256)) take_part(t, start.id, (int)(call % 256));
    }
}

static void announce(struct team *t, uint64_t call)
{
    atomic_store(&t->call, call);
    if (atomic_load(&t->asleep) > 0) {
        pthread_mutex_lock(&t->lock);
        pthread_cond_broadcast(&t->called);
        pthread_mutex_unlock(&t->lock);
    }
}

static void run(struct team *t, struct session *s, const struct batch *batch)
{
    int64_t began = now_ns();
    int n = began < t->alone_until ? 1 : t->n;
    t->s = s, t->batch = batch, t->base = atomic_load(&t->arrived);
    if (n > 1) announce(t, (atomic_load(&t->call) / 256 + 1) * 256 + (uint64_t)n);
    int64_t waited = take_part(t, 0, n), now = now_ns();
    if (n == 1) return;
    if (waited > (now - began) / 4) {
        t->alone_until = now + t->pause;
        t->pause = t->pause * 2 < LONGEST_PAUSE_NS ? t->pause * 2 : LONGEST_PAUSE_NS;
    } else if (t->pause > SHORTEST_PAUSE_NS) {
        t->pause -= t->pause / 64;
    }
}

static void end_team(struct team *t)
{
    announce(t, 0);
    for (int i = 1; i < t->n; i++) pthread_join(t->threads[i], NULL);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->called);
    free(t);
}

static struct team *start_team(int n)
{
    struct team *t = calloc(1, sizeof *t);
    if (t == NULL) return NULL;
    t->n = 1, t->pause = SHORTEST_PAUSE_NS;
    atomic_store(&t->call, 256);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->called, NULL);
    for (; t->n < n; t->n++) { /* as many as there may be: fewer are slower, not wrong */
        struct start *start = malloc(sizeof *start);
        if (start == NULL) break;
        *start = (struct start){t, t->n};
        if (pthread_create(&t->threads[t->n], NULL, worker_main, start)) {
            free(start);
            break;
        }
    }
    return t;
}

/* ---- the interface ------------------------------------------------------------------------- */

void storygen_close(struct session *s)
{
    if (s == NULL) return;
    if (s->team) end_team(s->team);
    void *memory[] = {s->keys, s->values, s->x,    s->qkv, s->mix,  s->inner,      s->scores,
                      s->y,    s->scale,  s->bf16, s->q,   s->sums, s->candidates, s->seen};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) free(memory[i]);
    free(s);
}

/* Zeroed, and at an address that vectors like. */
static void *taken(size_t size)
{
    void *memory = NULL;
    return posix_memalign(&memory, 64, size + 64) ? NULL : memset(memory, 0, size);
}

/* Not zeroed: a page of memory is only taken from the machine when something is written there. */
static void *reserved(size_t size)
{
    void *memory = NULL;
    return posix_memalign(&memory, 64, size + 64) ? NULL : memory;
}

/* A session over a model, which must outlive it; NULL when memory is short. */
struct session *storygen_open(const struct model *m, int n_slots, int max_rows, int n_threads)
{
    struct session *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    n_threads = n_threads < MAX_THREADS ? n_threads : MAX_THREADS;
    s->model = m, s->max_rows = max_rows;
    s->head_size = m->n_embd / m->n_head, s->head_wide = round_up(s->head_size, LANES);
    s->positions = round_up(m->block_size, LANES);
    int wide = round_up(m->n_embd, GROUP), inner = round_up(m->n_inner, GROUP);
    s->wide = wide > inner ? wide : inner;
    size_t heads = (size_t)m->n_layer * m->n_head * s->positions, number = m->cache_bf16 ? 2 : 4;
    size_t rows = (size_t)max_rows, all_rows = rows + 2 * n_threads;
    s->keys = reserved(n_slots * heads * s->head_size * number);
    s->values = reserved(n_slots * heads * s->head_wide * number);
    s->x = taken(rows * wide * sizeof(float));
    s->mix = taken(rows * wide * sizeof(float));
    s->qkv = taken(rows * round_up(3 * m->n_embd, GROUP) * sizeof(float));
    s->inner = taken(rows * inner * sizeof(float));
    s->scores = taken((size_t)n_threads * s->positions * sizeof(float));
    s->y = taken(all_rows * s->wide * sizeof(float));
    s->bf16 = taken(all_rows * s->wide * sizeof(uint16_t));
    s->q = taken(all_rows * s->wide);
    s->scale = taken(all_rows * s->wide / GROUP * sizeof(float));
    s->sums = taken(all_rows * s->wide / GROUP * 2 * sizeof(int32_t));
    s->candidates = reserved((size_t)n_threads * m->vocab_size * sizeof(double));
    s->seen = taken((size_t)n_threads * m->vocab_size);
    s->team = start_team(n_threads);
    if (s->keys && s->values && s->x && s->mix && s->qkv && s->inner && s->scores && s->y &&
        s->bf16 && s->q && s->scale && s->sums && s->candidates && s->seen && s->team)
        return s;
    storygen_close(s);
    return NULL;
}

/* Compute a batch; at most max_rows rows, within block_size, of slots and tokens that there are. */
void storygen_step(struct session *s, const struct batch *batch) { run(s->team, s, batch); }

/* Let a slot remember the first n positions of another. */
void storygen_copy(struct session *s, int from, int to, int n)
{
    const struct model *m = s->model;
    size_t number = m->cache_bf16 ? 2 : 4;
    for (int l = 0; l < m->n_layer; l++)
        for (int h = 0; h < m->n_head; h++) {
            size_t size = (size_t)round_up(n, LANES) * s->head_size * number;
            memcpy(s->keys + key_at(s, to, l, h, 0) * number,
                   s->keys + key_at(s, from, l, h, 0) * number, size);
            size = (size_t)n * s->head_wide * number;
            memcpy(s->values + value_at(s, to, l, h, 0) * number,
                   s->values + value_at(s, from, l, h, 0) * number, size);
        }
}
