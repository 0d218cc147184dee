/* decode.c alone, with random models of awkward shapes and as many threads as asked for: something
 * for the sanitizers to watch. Prints a sum of all logits, which no thread count may change. */
#include "../../storygen/decode/decode.c"

#include <stdio.h>

static uint64_t state = 1;
static float random_number(void)
{
    state = splitmix64(state, 7);
    return (float)(int)(state >> 44) / 1048576.0f - 0.5f;
}

/* Exactly as large as it must be, so that a byte too many is noticed. */
static float *floats(size_t n)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = random_number();
    return x;
}

static struct matrix random_matrix(int format, int n_in, int n_out)
{
    struct matrix m = {format, n_in, n_out, NULL, floats((size_t)round_up(n_out, WIDE))};
    size_t size = (size_t)LINE * (size_t)lines(&m) * (size_t)(round_up(n_out, WIDE) / LANES);
    uint8_t *data = malloc(size);
    for (size_t i = 0; i < size; i++) data[i] = (uint8_t)(random_number() * 255);
    for (size_t i = 0; format == F32 && i < size / 4; i++) ((float *)data)[i] = random_number();
    for (size_t i = 0; format == BF16 && i < size / 2; i++)
        ((uint16_t *)data)[i] = to_bf16(all(random_number()))[0];
    for (size_t line = 0; line < size / LINE; line++) { /* the last of each group has its scales */
        size_t in_block = line / BLOCKS % (size_t)lines(&m);
        if (format == INT8 && in_block % INT8_LINES == INT8_LINES - 1)
            for (int i = 0; i < LANES; i++)
                ((float *)(data + line * LINE))[i] = random_number() / 64;
        if (format == INT4 && in_block % INT4_LINES == INT4_LINES - 1)
            for (int i = 0; i < 2 * LANES; i++)
                ((uint16_t *)(data + line * LINE))[i] = to_bf16(all(random_number() / 4))[0];
    }
    m.data = data;
    return m;
}

static void free_matrix(struct matrix m) { free((void *)m.data), free((void *)m.bias); }

static double run_model(int format, int n_head, int head_size, int n_inner, int vocab,
                        int n_threads)
{
    enum { LAYERS = 2, BLOCK = 37, SLOTS = 3, ROWS = 9 };
    int C = n_head * head_size, padded = round_up(C, WIDE);
    struct layer layers[LAYERS];
    for (int l = 0; l < LAYERS; l++)
        layers[l] = (struct layer){floats((size_t)padded),
                                   floats((size_t)padded),
                                   floats((size_t)padded),
                                   floats((size_t)padded),
                                   random_matrix(format, C, 3 * C),
                                   random_matrix(format, C, C),
                                   random_matrix(format, C, n_inner),
                                   random_matrix(format, n_inner, C)};
    struct model m = {LAYERS,
                      n_head,
                      C,
                      n_inner,
                      vocab,
                      BLOCK,
                      GELU_TANH,
                      format != F32,
                      1e-5f,
                      NULL,
                      random_matrix(format == INT4 ? INT8 : format, C, vocab),
                      floats((size_t)BLOCK * (size_t)C),
                      floats((size_t)padded),
                      floats((size_t)padded),
                      layers};
    m.embedding = &m.lm_head;
    struct session *s = storygen_open(&m, SLOTS, ROWS, n_threads);
    float *logits = malloc((size_t)(ROWS * round_up(vocab, WIDE)) * sizeof *logits);
    double total = 0;
    int32_t out[ROWS], drawn[ROWS], context[2] = {0, vocab - 1};
    for (int i = 0; i < ROWS; i++) out[i] = i;
    int32_t slots[ROWS], positions[ROWS], tokens[ROWS];
    struct choice choices[ROWS];
    struct adjustment adjustments[2] = {{-INFINITY, 0}, {0.75, vocab - 1}};
    for (int start = 0; start < BLOCK; start += ROWS) { /* one story in pieces */
        int n = BLOCK - start < ROWS ? BLOCK - start : ROWS;
        for (int i = 0; i < n; i++)
            slots[i] = 1, positions[i] = start + i, tokens[i] = (start + i) % vocab;
        struct batch batch = {n, n, slots, positions, tokens, out, logits, vocab, NULL, drawn};
        storygen_step(s, &batch);
        for (int i = 0; i < n; i++)
            for (int t = 0; t < vocab; t++) total += logits[i * round_up(vocab, WIDE) + t];
    }
    storygen_copy(s, 1, 0, 11);
    storygen_copy(s, 1, 2, 20);
    for (int step = 0; step < 16; step++) { /* three side by side */
        for (int i = 0; i < SLOTS; i++) {
            slots[i] = i, tokens[i] = step == 0 ? i % vocab : drawn[i];
            positions[i] = (int[]){11, 5, 20}[i] + step;
            choices[i] =
                (struct choice){0.7 + 0.1 * i, i ? 0.9 : 1.0, i == 2 ? 0.05 : 0, 1.0 + 0.1 * i,
                                step,          positions[i],  i == 1 ? 0 : 5,    2,
                                i ? 2 : 0,     context,       adjustments};
        }
        struct batch batch = {SLOTS, SLOTS,  slots, positions, tokens,
                              out,   logits, vocab, choices,   drawn};
        storygen_step(s, &batch);
        for (int i = 0; i < SLOTS; i++) total += drawn[i] < 0 ? (drawn[i] = 0) : drawn[i];
    }
    storygen_close(s);
    free(logits);
    for (int l = 0; l < LAYERS; l++) {
        struct layer *a = &layers[l];
        free((void *)a->ln_1_weight), free((void *)a->ln_1_bias);
        free((void *)a->ln_2_weight), free((void *)a->ln_2_bias);
        free_matrix(a->c_attn), free_matrix(a->attn_proj), free_matrix(a->c_fc),
            free_matrix(a->mlp_proj);
    }
    free_matrix(m.lm_head);
    free((void *)m.wpe), free((void *)m.ln_f_weight), free((void *)m.ln_f_bias);
    return total;
}

int main(int n, char **arguments)
{
    int n_threads = n > 1 ? atoi(arguments[1]) : 1;
    const int shapes[][4] = {{1, 1, 1, 2}, {3, 21, 100, 70}, {2, 32, 256, 40}, {1, 80, 65, 300}};
    for (int format = F32; format <= INT4; format++)
        for (int i = 0; i < 4; i++) {
            state = (uint64_t)(17 * i + format);
            const int *of = shapes[i];
            printf("%.17g\n", run_model(format, of[0], of[1], of[2], of[3], n_threads));
        }
    return 0;
}
