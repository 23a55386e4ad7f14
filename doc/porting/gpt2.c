/* GPT-2 in C, forward, backward and AdamW, written by doc/porting/porting.md.
 *
 *     cc -O2 -o gpt2 gpt2.c -lm
 *     ./gpt2 plain.bin plain_debug_state.bin mine [STEPS LR WEIGHT_DECAY]
 *
 * reads a model of float32 and the batch of its debug state, and writes every tensor into the
 * folder mine, a raw file each, for npgpt diff. Plain loops, in the order of the guide.
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "error: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    exit(2);
}

static void *zeros(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) fail("not enough memory");
    return memory;
}

static float *floats(size_t count) { return zeros(count, sizeof(float)); }

/* Step 0: the files. */

static FILE *open_file(const char *path, const char *mode) {
    FILE *file = fopen(path, mode);
    if (!file) fail("%s: %s", path, strerror(errno));
    return file;
}

static void read_all(void *out, size_t size, size_t count, FILE *file, const char *path) {
    if (fread(out, size, count, file) != count) fail("%s: truncated", path);
}

static void write_tensor(const char *folder, const char *name, int block, const void *data,
                         size_t count) {
    char path[4096];
    if (block < 0) snprintf(path, sizeof path, "%s/%s.f4", folder, name);
    else snprintf(path, sizeof path, "%s/%s.%d.f4", folder, name, block);
    FILE *file = open_file(path, "wb");
    if (fwrite(data, sizeof(float), count, file) != count || fclose(file)) fail("%s: disk", path);
}

enum { WTE, WPE, LN1W, LN1B, QKVW, QKVB, ATTPROJW, ATTPROJB, LN2W, LN2B, FCW, FCB, FCPROJW,
       FCPROJB, LNFW, LNFB, N_TENSORS };
static const char *NAMES[] = {"wte", "wpe", "ln1w", "ln1b", "qkvw", "qkvb", "attprojw",
                              "attprojb", "ln2w", "ln2b", "fcw", "fcb", "fcprojw", "fcprojb",
                              "lnfw", "lnfb"};

typedef struct {
    int block_size, V, L, NH, C, padded_V;
} Config;

/* Sixteen tensors in one buffer; those of the blocks have L parts. */
typedef struct {
    float *all, *tensor[N_TENSORS];
    size_t size[N_TENSORS], total;
} Tensors;

static int is_stacked(int i) { return i >= LN1W && i <= FCPROJB; }

static Tensors make_tensors(Config c) {
    Tensors t = {0};
    size_t C = c.C, L = c.L;
    size_t sizes[] = {c.V * C, c.block_size * C, L * C, L * C, L * 3 * C * C, L * 3 * C, L * C * C,
                      L * C, L * C, L * C, L * 4 * C * C, L * 4 * C, L * 4 * C * C, L * C, C, C};
    for (int i = 0; i < N_TENSORS; i++) t.total += t.size[i] = sizes[i];
    float *next = t.all = floats(t.total);
    for (int i = 0; i < N_TENSORS; next += t.size[i++]) t.tensor[i] = next;
    return t;
}

static float *part(Tensors *t, Config c, int i, int block) {
    return t->tensor[i] + (is_stacked(i) ? block * (t->size[i] / c.L) : 0);
}

static Tensors read_model(const char *path, Config *c) {
    int32_t header[256];
    FILE *file = open_file(path, "rb");
    read_all(header, 4, 256, file, path);
    if (header[0] != 20240326 || (header[1] != 1 && header[1] != 3))
        fail("%s: not a model of float32", path);
    *c = (Config){header[2], header[3], header[4], header[5], header[6], header[3]};
    if (header[1] == 3) c->padded_V = header[7];
    Tensors t = make_tensors(*c);
    read_all(t.tensor[WTE], 4, t.size[WTE], file, path);
    fseek(file, 4L * (c->padded_V - c->V) * c->C, SEEK_CUR); /* rows of padding */
    read_all(t.tensor[WPE], 4, t.total - t.size[WTE], file, path);
    fclose(file);
    return t;
}

/* Steps 1 to 7: the layers. N is B * T. */

static void encoder_forward(float *out, const int *x, const float *wte, const float *wpe, int B,
                            int T, int C) {
    for (int b = 0; b < B; b++)
        for (int t = 0; t < T; t++)
            for (int c = 0; c < C; c++)
                out[(b * T + t) * C + c] = wte[(size_t)x[b * T + t] * C + c] + wpe[t * C + c];
}

static void encoder_backward(float *dwte, float *dwpe, const float *dout, const int *x, int B,
                             int T, int C) {
    for (int b = 0; b < B; b++)
        for (int t = 0; t < T; t++)
            for (int c = 0; c < C; c++) {
                float d = dout[(b * T + t) * C + c];
                dwte[(size_t)x[b * T + t] * C + c] += d;
                dwpe[t * C + c] += d;
            }
}

static void layernorm_forward(float *out, float *mean, float *rstd, const float *x, const float *w,
                              const float *b, int N, int C) {
    for (int n = 0; n < N; n++) {
        const float *row = x + (size_t)n * C;
        float m = 0, v = 0;
        for (int c = 0; c < C; c++) m += row[c];
        m /= C;
        for (int c = 0; c < C; c++) v += (row[c] - m) * (row[c] - m);
        float r = 1 / sqrtf(v / C + 1e-5f);
        for (int c = 0; c < C; c++) out[(size_t)n * C + c] = (row[c] - m) * r * w[c] + b[c];
        mean[n] = m;
        rstd[n] = r;
    }
}

/* Adds to dx, dw and db. */
static void layernorm_backward(float *dx, float *dw, float *db, const float *dout, const float *x,
                               const float *w, const float *mean, const float *rstd, int N,
                               int C) {
    for (int n = 0; n < N; n++) {
        const float *d = dout + (size_t)n * C, *row = x + (size_t)n * C;
        float by_mean = 0, along = 0;
        for (int c = 0; c < C; c++) {
            float xhat = (row[c] - mean[n]) * rstd[n];
            by_mean += d[c] * w[c];
            along += d[c] * w[c] * xhat;
            dw[c] += d[c] * xhat;
            db[c] += d[c];
        }
        by_mean /= C;
        along /= C;
        for (int c = 0; c < C; c++) {
            float xhat = (row[c] - mean[n]) * rstd[n];
            dx[(size_t)n * C + c] += (d[c] * w[c] - by_mean - xhat * along) * rstd[n];
        }
    }
}

static void matmul_forward(float *out, const float *x, const float *w, const float *b, int N,
                           int C, int OC) {
    for (int n = 0; n < N; n++)
        for (int o = 0; o < OC; o++) {
            float sum = b ? b[o] : 0;
            for (int c = 0; c < C; c++) sum += x[(size_t)n * C + c] * w[(size_t)o * C + c];
            out[(size_t)n * OC + o] = sum;
        }
}

/* Writes dx, adds to dw and db. */
static void matmul_backward(float *dx, float *dw, float *db, const float *dout, const float *x,
                            const float *w, int N, int C, int OC) {
    memset(dx, 0, sizeof(float) * N * C);
    for (int n = 0; n < N; n++)
        for (int o = 0; o < OC; o++) {
            float d = dout[(size_t)n * OC + o];
            if (db) db[o] += d;
            for (int c = 0; c < C; c++) {
                dx[(size_t)n * C + c] += d * w[(size_t)o * C + c];
                dw[(size_t)o * C + c] += d * x[(size_t)n * C + c];
            }
        }
}

static void attention_forward(float *preatt, float *att, float *atty, const float *qkv, int B,
                              int T, int C, int NH) {
    int hs = C / NH;
    float scale = 1 / sqrtf(hs);
    for (int b = 0; b < B; b++)
        for (int h = 0; h < NH; h++)
            for (int t = 0; t < T; t++) {
                const float *q = qkv + (size_t)(b * T + t) * 3 * C + h * hs;
                float *p = preatt + ((size_t)(b * NH + h) * T + t) * T;
                float *a = att + ((size_t)(b * NH + h) * T + t) * T;
                float *y = atty + (size_t)(b * T + t) * C + h * hs, highest = -INFINITY, sum = 0;
                for (int u = 0; u <= t; u++) {
                    const float *k = qkv + (size_t)(b * T + u) * 3 * C + C + h * hs;
                    float score = 0;
                    for (int i = 0; i < hs; i++) score += q[i] * k[i];
                    p[u] = score * scale;
                    highest = fmaxf(highest, p[u]);
                }
                for (int u = 0; u <= t; u++) sum += a[u] = expf(p[u] - highest);
                for (int u = 0; u <= t; u++) a[u] /= sum;
                for (int u = 0; u <= t; u++) {
                    const float *v = qkv + (size_t)(b * T + u) * 3 * C + 2 * C + h * hs;
                    for (int i = 0; i < hs; i++) y[i] += a[u] * v[i];
                }
            }
}

static void attention_backward(float *dpreatt, float *datt, float *dqkv, const float *datty,
                               const float *qkv, const float *att, int B, int T, int C, int NH) {
    int hs = C / NH;
    float scale = 1 / sqrtf(hs);
    for (int b = 0; b < B; b++)
        for (int h = 0; h < NH; h++)
            for (int t = 0; t < T; t++) {
                size_t row = ((size_t)(b * NH + h) * T + t) * T, at = (size_t)(b * T + t);
                const float *a = att + row, *dy = datty + at * C + h * hs;
                const float *q = qkv + at * 3 * C + h * hs;
                float *dq = dqkv + at * 3 * C + h * hs, inner = 0;
                for (int u = 0; u <= t; u++) {
                    size_t from = (size_t)(b * T + u) * 3 * C + h * hs;
                    const float *v = qkv + from + 2 * C;
                    float *dv = dqkv + from + 2 * C;
                    for (int i = 0; i < hs; i++) {
                        datt[row + u] += dy[i] * v[i];
                        dv[i] += a[u] * dy[i];
                    }
                    inner += a[u] * datt[row + u];
                }
                for (int u = 0; u <= t; u++) {
                    size_t from = (size_t)(b * T + u) * 3 * C + h * hs;
                    float d = dpreatt[row + u] = a[u] * (datt[row + u] - inner);
                    for (int i = 0; i < hs; i++) {
                        dq[i] += d * qkv[from + C + i] * scale;
                        dqkv[from + C + i] += d * q[i] * scale;
                    }
                }
            }
}

static void add(float *out, const float *x, const float *y, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = x[i] + y[i];
}

static const float ROOT = 0.7978845608028654f; /* sqrt(2 / pi) */

static void gelu_forward(float *out, const float *x, size_t count) {
    for (size_t i = 0; i < count; i++)
        out[i] = 0.5f * x[i] * (1 + tanhf(ROOT * (x[i] + 0.044715f * x[i] * x[i] * x[i])));
}

static void gelu_backward(float *dx, const float *dout, const float *x, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float th = tanhf(ROOT * (x[i] + 0.044715f * x[i] * x[i] * x[i]));
        float slope = (1 - th * th) * ROOT * (1 + 3 * 0.044715f * x[i] * x[i]);
        dx[i] = dout[i] * 0.5f * (1 + th + x[i] * slope);
    }
}

/* Step 8: the head. Ignored targets are -1. */

static int count_targets(const int *y, int N) {
    int count = 0;
    for (int n = 0; n < N; n++) count += y[n] >= 0;
    return count;
}

static float softmax_loss(float *probs, float *losses, const float *logits, const int *y, int N,
                          int V) {
    double total = 0;
    for (int n = 0; n < N; n++) {
        const float *l = logits + (size_t)n * V;
        float *p = probs + (size_t)n * V, highest = -INFINITY, sum = 0;
        for (int v = 0; v < V; v++) highest = fmaxf(highest, l[v]);
        for (int v = 0; v < V; v++) sum += p[v] = expf(l[v] - highest);
        for (int v = 0; v < V; v++) p[v] /= sum;
        losses[n] = y[n] < 0 ? 0 : logf(sum) - (l[y[n]] - highest);
        total += losses[n];
    }
    return total / count_targets(y, N);
}

/* The passes. */

static const char *BLOCK[] = {"ln1_mean", "ln1_rstd", "ln1", "qkv", "preatt", "att", "atty",
                              "attproj", "residual2", "ln2_mean", "ln2_rstd", "ln2", "fch",
                              "fch_gelu", "fcproj", "residual3"};
enum { LN1_MEAN, LN1_RSTD, LN1, QKV, PREATT, ATT, ATTY, ATTPROJ, RESIDUAL2, LN2_MEAN, LN2_RSTD,
       LN2, FCH, FCH_GELU, FCPROJ, RESIDUAL3, N_BLOCK };

typedef struct {
    float *encoded, **block, *lnf_mean, *lnf_rstd, *lnf, *logits, *probs, *losses;
} Activations;

static void block_sizes(size_t *size, Config c, int B, int T) {
    size_t N = (size_t)B * T, NC = N * c.C, scores = N * T * c.NH;
    size_t sizes[] = {N,  N, NC, 3 * NC, scores, scores, NC, NC,
                      NC, N, N,  NC,     4 * NC, 4 * NC, NC, NC};
    memcpy(size, sizes, sizeof sizes);
}

static Activations make_activations(Config c, int B, int T) {
    size_t N = (size_t)B * T, size[N_BLOCK];
    Activations a = {floats(N * c.C), zeros(c.L * N_BLOCK, sizeof(float *)), floats(N), floats(N),
                     floats(N * c.C), floats(N * c.V), floats(N * c.V), floats(N)};
    block_sizes(size, c, B, T);
    for (int i = 0; i < c.L * N_BLOCK; i++) a.block[i] = floats(size[i % N_BLOCK]);
    return a;
}

static void free_activations(Activations a, Config c) {
    for (int i = 0; i < c.L * N_BLOCK; i++) free(a.block[i]);
    free(a.encoded), free(a.block), free(a.lnf_mean), free(a.lnf_rstd), free(a.lnf);
    free(a.logits), free(a.probs), free(a.losses);
}

static float forward(Activations a, Tensors *p, Config c, const int *x, const int *y, int B,
                     int T) {
    int N = B * T, C = c.C;
    encoder_forward(a.encoded, x, p->tensor[WTE], p->tensor[WPE], B, T, C);
    float *stream = a.encoded;
    for (int l = 0; l < c.L; l++) {
        float **k = a.block + l * N_BLOCK;
#define P(i) part(p, c, i, l)
        layernorm_forward(k[LN1], k[LN1_MEAN], k[LN1_RSTD], stream, P(LN1W), P(LN1B), N, C);
        matmul_forward(k[QKV], k[LN1], P(QKVW), P(QKVB), N, C, 3 * C);
        attention_forward(k[PREATT], k[ATT], k[ATTY], k[QKV], B, T, C, c.NH);
        matmul_forward(k[ATTPROJ], k[ATTY], P(ATTPROJW), P(ATTPROJB), N, C, C);
        add(k[RESIDUAL2], stream, k[ATTPROJ], (size_t)N * C);
        layernorm_forward(k[LN2], k[LN2_MEAN], k[LN2_RSTD], k[RESIDUAL2], P(LN2W), P(LN2B), N, C);
        matmul_forward(k[FCH], k[LN2], P(FCW), P(FCB), N, C, 4 * C);
        gelu_forward(k[FCH_GELU], k[FCH], (size_t)N * 4 * C);
        matmul_forward(k[FCPROJ], k[FCH_GELU], P(FCPROJW), P(FCPROJB), N, 4 * C, C);
        add(k[RESIDUAL3], k[RESIDUAL2], k[FCPROJ], (size_t)N * C);
        stream = k[RESIDUAL3];
    }
    layernorm_forward(a.lnf, a.lnf_mean, a.lnf_rstd, stream, p->tensor[LNFW], p->tensor[LNFB], N,
                      C);
    matmul_forward(a.logits, a.lnf, p->tensor[WTE], NULL, N, C, c.V);
    return softmax_loss(a.probs, a.losses, a.logits, y, N, c.V);
}

/* Fills d, zeros before, and adds to g. */
static void backward(Activations d, Tensors *g, Activations a, Tensors *p, Config c, const int *x,
                     const int *y, int B, int T) {
    int N = B * T, C = c.C, count = count_targets(y, N);
    for (int n = 0; n < N; n++) {
        d.losses[n] = y[n] < 0 ? 0 : 1.0f / count;
        for (int v = 0; v < c.V; v++)
            d.logits[(size_t)n * c.V + v] =
                (a.probs[(size_t)n * c.V + v] - (v == y[n])) * d.losses[n];
    }
    matmul_backward(d.lnf, g->tensor[WTE], NULL, d.logits, a.lnf, p->tensor[WTE], N, C, c.V);
    float *last = a.block[(c.L - 1) * N_BLOCK + RESIDUAL3];
    layernorm_backward(d.block[(c.L - 1) * N_BLOCK + RESIDUAL3], g->tensor[LNFW], g->tensor[LNFB],
                       d.lnf, last, p->tensor[LNFW], a.lnf_mean, a.lnf_rstd, N, C);
    for (int l = c.L - 1; l >= 0; l--) {
        float **k = a.block + l * N_BLOCK, **e = d.block + l * N_BLOCK;
        float *input = l ? k[RESIDUAL3 - N_BLOCK] : a.encoded;
        float *dinput = l ? e[RESIDUAL3 - N_BLOCK] : d.encoded;
#define G(i) part(g, c, i, l)
        memcpy(e[FCPROJ], e[RESIDUAL3], sizeof(float) * N * C);
        matmul_backward(e[FCH_GELU], G(FCPROJW), G(FCPROJB), e[FCPROJ], k[FCH_GELU], P(FCPROJW), N,
                        4 * C, C);
        gelu_backward(e[FCH], e[FCH_GELU], k[FCH], (size_t)N * 4 * C);
        matmul_backward(e[LN2], G(FCW), G(FCB), e[FCH], k[LN2], P(FCW), N, C, 4 * C);
        memcpy(e[RESIDUAL2], e[RESIDUAL3], sizeof(float) * N * C); /* what passes by */
        layernorm_backward(e[RESIDUAL2], G(LN2W), G(LN2B), e[LN2], k[RESIDUAL2], P(LN2W),
                           k[LN2_MEAN], k[LN2_RSTD], N, C);
        memcpy(e[ATTPROJ], e[RESIDUAL2], sizeof(float) * N * C);
        matmul_backward(e[ATTY], G(ATTPROJW), G(ATTPROJB), e[ATTPROJ], k[ATTY], P(ATTPROJW), N, C,
                        C);
        attention_backward(e[PREATT], e[ATT], e[QKV], e[ATTY], k[QKV], k[ATT], B, T, C, c.NH);
        matmul_backward(e[LN1], G(QKVW), G(QKVB), e[QKV], k[LN1], P(QKVW), N, C, 3 * C);
        memcpy(dinput, e[RESIDUAL2], sizeof(float) * N * C);
        layernorm_backward(dinput, G(LN1W), G(LN1B), e[LN1], input, P(LN1W), k[LN1_MEAN],
                           k[LN1_RSTD], N, C);
    }
    encoder_backward(g->tensor[WTE], g->tensor[WPE], d.encoded, x, B, T, C);
}

/* Step 14: AdamW. */
static void update(Tensors *p, Tensors *g, Tensors *m, Tensors *v, int t, float lr, float decay) {
    float c1 = 1 - powf(0.9f, t), c2 = 1 - powf(0.999f, t);
    for (size_t i = 0; i < p->total; i++) {
        m->all[i] = 0.9f * m->all[i] + 0.1f * g->all[i];
        v->all[i] = 0.999f * v->all[i] + 0.001f * g->all[i] * g->all[i];
        p->all[i] -= lr * (m->all[i] / c1 / (sqrtf(v->all[i] / c2) + 1e-8f) + decay * p->all[i]);
    }
}

static void write_norms(const char *folder, const char *name, int step, Tensors *t) {
    float norms[N_TENSORS];
    for (int i = 0; i < N_TENSORS; i++) {
        double sum = 0;
        for (size_t j = 0; j < t->size[i]; j++) sum += (double)t->tensor[i][j] * t->tensor[i][j];
        norms[i] = sqrt(sum);
    }
    write_tensor(folder, name, step, norms, N_TENSORS);
}

static void write_parameters(const char *folder, const char *d, Tensors *t, Config c) {
    char name[32];
    for (int i = 0; i < N_TENSORS; i++) {
        snprintf(name, sizeof name, "%s%s", d, NAMES[i]);
        if (!is_stacked(i)) write_tensor(folder, name, -1, t->tensor[i], t->size[i]);
        for (int l = 0; is_stacked(i) && l < c.L; l++)
            write_tensor(folder, name, l, part(t, c, i, l), t->size[i] / c.L);
    }
}

static void write_activations(const char *folder, const char *d, Activations a, Config c, int B,
                              int T) {
    char name[32];
    size_t N = (size_t)B * T, size[N_BLOCK];
    block_sizes(size, c, B, T);
    struct {
        const char *name;
        float *data;
        size_t count;
    } others[] = {{"encoded", a.encoded, N * c.C}, {"lnf", a.lnf, N * c.C},
                  {"logits", a.logits, N * c.V},   {"losses", a.losses, N},
                  {"lnf_mean", a.lnf_mean, N},     {"lnf_rstd", a.lnf_rstd, N},
                  {"probs", a.probs, N * c.V}};
    for (int i = 0; i < (*d ? 4 : 7); i++) {
        snprintf(name, sizeof name, "%s%s", d, others[i].name);
        write_tensor(folder, name, -1, others[i].data, others[i].count);
    }
    for (int i = 0; i < c.L * N_BLOCK; i++) {
        const char *what = BLOCK[i % N_BLOCK];
        if (*d && (strstr(what, "_mean") || strstr(what, "_rstd"))) continue;
        snprintf(name, sizeof name, "%s%s", d, what);
        write_tensor(folder, name, i / N_BLOCK, a.block[i], size[i % N_BLOCK]);
    }
}

int main(int count, char **words) {
    if (count != 4 && count != 7) fail("usage: gpt2 MODEL STATE FOLDER [STEPS LR WEIGHT_DECAY]");
    const char *folder = words[3];
    Config c;
    Tensors p = read_model(words[1], &c);
    int32_t header[256];
    FILE *file = open_file(words[2], "rb");
    read_all(header, 4, 256, file, words[2]);
    if (header[0] != 20240327) fail("%s: not a debug state", words[2]);
    int B = header[2], T = header[3];
    int *x = zeros((size_t)2 * B * T, sizeof(int)), *y = x + B * T;
    read_all(x, 4, (size_t)2 * B * T, file, words[2]);
    fclose(file);
    if (mkdir(folder, 0777) && errno != EEXIST) fail("%s: %s", folder, strerror(errno));

    Activations a = make_activations(c, B, T), d = make_activations(c, B, T);
    Tensors g = make_tensors(c), m = make_tensors(c), v = make_tensors(c);
    float loss = forward(a, &p, c, x, y, B, T);
    backward(d, &g, a, &p, c, x, y, B, T);
    write_parameters(folder, "", &p, c);
    write_activations(folder, "", a, c, B, T);
    write_tensor(folder, "loss", -1, &loss, 1);
    write_activations(folder, "d", d, c, B, T);
    write_parameters(folder, "d", &g, c);
    printf("loss %.6f\n", loss);
    int steps = count == 7 ? atoi(words[4]) : 0;
    for (int step = 1; step <= steps; step++) {
        update(&p, &g, &m, &v, step, atof(words[5]), atof(words[6]));
        write_norms(folder, "step_m", step, &m);
        write_norms(folder, "step_v", step, &v);
        write_norms(folder, "step_params", step, &p);
        free_activations(a, c), free_activations(d, c);
        a = make_activations(c, B, T), d = make_activations(c, B, T);
        memset(g.all, 0, sizeof(float) * g.total);
        loss = forward(a, &p, c, x, y, B, T);
        backward(d, &g, a, &p, c, x, y, B, T);
        write_tensor(folder, "step_loss", step, &loss, 1);
        printf("after update %d: loss %.6f\n", step, loss);
    }
    return 0;
}
