// Speed of a cache type against f16 on a machine that others use, too: two contexts of one model take turns, token by
// token, so that whatever slows the machine down slows both. Prints, as JSON, the median over the turns of
// time with f16 / time with the type, and its quartiles, for generation and for a prompt at a depth.
//
//     c++ -O2 -std=c++17 bench/speed.cpp -I TREE/include -I TREE/ggml/include -L BUILD/bin -lllama -lggml -lggml-base
//     ./a.out MODEL TYPE[:TYPE] DEPTH PROMPT TURNS THREADS
#include "ggml.h"
#include "llama.h"

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

static const char * program = "speed";
static const int    BATCH   = 512;

static void fail(const std::string & why) {
    fprintf(stderr, "%s: %s\n", program, why.c_str());
    exit(1);
}

static ggml_type type_of(const std::string & name) {
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const char * known = ggml_type_name((ggml_type) i);
        if (known && name == known) {
            return (ggml_type) i;
        }
    }
    fail("no cache type " + name);
    return GGML_TYPE_COUNT;
}

// Seconds: of the processor with one thread, which others' work distorts less, else of the day.
static double now(int threads) {
    timespec time;
    clock_gettime(threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
    return (double) time.tv_sec + 1e-9 * (double) time.tv_nsec;
}

static llama_context * context(llama_model * model, const std::string & key, const std::string & value, int cells,
                               int threads) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx                = (uint32_t) cells;
    params.n_batch = params.n_ubatch = BATCH;
    params.n_seq_max                 = 64;
    params.kv_unified                = true;
    params.n_threads = params.n_threads_batch = threads;
    params.flash_attn_type                    = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k                             = type_of(key);
    params.type_v                             = type_of(value);
    llama_context * made                      = llama_init_from_model(model, params);
    if (!made) {
        fail("no context for " + key + ":" + value);
    }
    return made;
}

// Decode `count` tokens of a sequence that stand at `first` and after.
static void decode(llama_context * ctx, int sequence, int first, int count, int vocabulary) {
    llama_batch batch = llama_batch_init(count, 0, 1);
    batch.n_tokens    = count;
    for (int i = 0; i < count; ++i) {
        batch.token[i]     = rand() % vocabulary;
        batch.pos[i]       = first + i;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = sequence;
        batch.logits[i]    = i == count - 1;
    }
    if (llama_decode(ctx, batch)) {
        fail("llama_decode failed");
    }
    llama_batch_free(batch);
}

// Fill the cache up to a depth, quickly: every batch is a sequence of its own, that sees no other, until they are joined.
static void fill(llama_context * ctx, int depth, int vocabulary) {
    for (int first = 0, sequence = 1; first < depth; first += BATCH, ++sequence) {
        decode(ctx, sequence, first, std::min(BATCH, depth - first), vocabulary);
    }
    for (int sequence = 1; sequence <= (depth + BATCH - 1) / BATCH; ++sequence) {
        llama_memory_seq_cp(llama_get_memory(ctx), sequence, 0, -1, -1);
    }
}

// Time for `count` tokens at a depth, which is restored.
static double timed(llama_context * ctx, int depth, int count, int vocabulary, int threads) {
    const double start = now(threads);
    decode(ctx, 0, depth, count, vocabulary);
    const double taken = now(threads) - start;
    llama_memory_seq_rm(llama_get_memory(ctx), 0, depth, -1);
    return taken;
}

int main(int argc, char ** argv) {
    program = argv[0];
    if (argc != 7) {
        fail("usage: MODEL TYPE[:TYPE] DEPTH PROMPT TURNS THREADS");
    }
    const std::string types = argv[2], key = types.substr(0, types.find(':'));
    const std::string value = types.find(':') == std::string::npos ? key : types.substr(types.find(':') + 1);
    const int         depth = atoi(argv[3]), prompt = atoi(argv[4]), turns = atoi(argv[5]), threads = atoi(argv[6]);
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    llama_model * model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) {
        fail("no model");
    }
    const int       vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    const int       cells      = depth + prompt + 256;
    llama_context * both[2]    = { context(model, "f16", "f16", cells, threads),
                                   context(model, key, value, cells, threads) };
    for (llama_context * ctx : both) {
        fill(ctx, depth, vocabulary);
        timed(ctx, depth, prompt, vocabulary, threads);  // warm
    }
    printf("{\"type\": \"%s\", \"depth\": %d, \"threads\": %d", types.c_str(), depth, threads);
    for (const int count : { prompt, 1 }) {
        std::vector<double> ratios;
        for (int turn = 0; turn < (count == 1 ? 8 * turns : turns); ++turn) {
            double taken[2];
            for (int i = 0; i < 2; ++i) {
                const int which = (turn + i) % 2;
                taken[which]    = timed(both[which], depth, count, vocabulary, threads);
            }
            ratios.push_back(taken[0] / taken[1]);
        }
        std::sort(ratios.begin(), ratios.end());
        const size_t n = ratios.size();
        printf(", \"%s\": [%.3f, %.3f, %.3f]", count == 1 ? "generation" : "prompt", ratios[n / 4], ratios[n / 2],
               ratios[3 * n / 4]);
    }
    printf("}\n");
    return 0;
}
