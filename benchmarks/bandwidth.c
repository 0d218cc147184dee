/* Reads memory as fast as the core can: a sum over `bytes` bytes, `passes` times. Eight sums side by
 * side keep eight vector loads in flight; the compiler makes them as wide as the processor has. */

#include <stddef.h>
#include <stdint.h>

enum { VECTORS = 8, WORDS = 8 }; /* 8 vectors of 64 bytes */

uint64_t read_all(const uint64_t *memory, size_t bytes, size_t passes)
{
    uint64_t sums[VECTORS * WORDS] = {0}, total = 0;
    size_t n = bytes / sizeof(uint64_t) / (VECTORS * WORDS) * (VECTORS * WORDS);
    for (size_t pass = 0; pass < passes; pass++) {
        for (size_t i = 0; i < n; i += VECTORS * WORDS)
            for (int j = 0; j < VECTORS * WORDS; j++)
                sums[j] += memory[i + j];
        __asm__ volatile("" ::: "memory"); /* or one pass would do for all */
    }
    for (int j = 0; j < VECTORS * WORDS; j++)
        total += sums[j];
    return total;
}
