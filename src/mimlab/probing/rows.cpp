// One pass over rows of logits: exponentials in place, and what the statistics need of each row (mimlab.probing.sums).
//
// The same as `rows` of tiles.py in one sweep that stays in the first-level cache. Sums within a row are float32 in
// as many lanes as the processor has; sums over rows are float32 for GROUP rows, then float64.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <omp.h>

namespace {

constexpr int64_t GROUP = 16;

// exp of x <= 0 within 2 units in the last place; 0 below -87. Not a number stays so.
inline float exponential(float x) {
    const float n = std::nearbyint(x * 1.44269504f);
    const float f = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    float p = 1.38888889e-3f;
    p = p * f + 8.33333377e-3f;
    p = p * f + 4.16666679e-2f;
    p = p * f + 1.66666672e-1f;
    p = p * f + 0.5f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    return x < -87.0f ? 0.0f : p * power;
}

}  // namespace

// logits: (maps, rows, patches), replaced by exponentials; the weights are these over their total.
// distances: (rows, patches), alike for all maps. total, tops, entropy, square, distance: (maps, rows).
// row, unit_row: (maps, patches), sums over the rows are added to them.
extern "C" void mimlab_rows(float* logits, int64_t maps, int64_t rows, int64_t patches, const float* distances,
                            float* total, float* tops, float* entropy, float* square, float* distance, double* row,
                            double* unit_row, int threads) {
    const int64_t all = maps * rows;
#pragma omp parallel num_threads(threads)
    {
        const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
        const int64_t begin = all * me / team, end = all * (me + 1) / team;
        std::vector<float> own(2 * patches);
        float* const own_row = own.data();
        float* const own_unit = own_row + patches;
        int64_t grouped = 0;
        for (int64_t at = begin; at < end; ++at) {
            const int64_t map = at / rows;
            float* const a = logits + at * patches;
            const float* const far = distances + at % rows * patches;
            float top = -INFINITY;
#pragma omp simd reduction(max : top)
            for (int64_t j = 0; j < patches; ++j) top = a[j] > top ? a[j] : top;
            if (top == -INFINITY) top = 0;  // every patch is masked: all weights are 0
            float sum = 0, weighted = 0, squares = 0, length = 0;
#pragma omp simd reduction(+ : sum, weighted, squares, length)
            for (int64_t j = 0; j < patches; ++j) {
                float x = a[j] - top;
                x = x < -104.0f ? -104.0f : x;  // a masked key must weigh 0, not 0 * -inf
                const float e = exponential(x);
                a[j] = e;
                sum += e;
                weighted += e * x;
                squares += e * e;
                length += e * far[j];
            }
            const float scale = 1 / sum, unit = 1 / std::sqrt(squares);
            total[at] = sum;
            tops[at] = top;
            entropy[at] = std::log(sum) - weighted * scale;
            square[at] = squares * scale * scale;
            distance[at] = length * scale;
#pragma omp simd
            for (int64_t j = 0; j < patches; ++j) {
                const float e = a[j];
                own_row[j] += e * scale;
                own_unit[j] += e * unit;
            }
            const bool last = at + 1 == end || (at + 1) / rows != map;
            if (last || ++grouped == GROUP) {
#pragma omp critical
                for (int64_t j = 0; j < patches; ++j) {
                    row[map * patches + j] += own_row[j];
                    unit_row[map * patches + j] += own_unit[j];
                }
                std::fill(own.begin(), own.end(), 0.0f);
                grouped = 0;
            }
        }
    }
}
