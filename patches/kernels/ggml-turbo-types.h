// The TurboQuant cache types: which there are, and what tells them apart. C, C++ and Metal read this file, so it holds
// macros alone. A new type is a row here with its constants, and a row of `types` in series.yaml.
#pragma once

// X(ID, id, RAW): GGML_TYPE_ID, the name in lower case, and how many bits of an index are stored as they are, beside the
// two that come from the trellis. Metal tells the types by RAW, so that each has another one.
#define TURBO_TYPES(X)   \
    X(TURBO4, turbo4, 3) \
    X(TURBO3, turbo3, 2) \
    X(TURBO2, turbo2, 1) \
    X(TURBO5, turbo5, 4)

// The codebooks by their upper half; level k belongs to subset k % 4, so the neighbours within a subset are four levels
// apart. The first (LEVELS) are trained on N(0,1) with the encoder as it is, times the factor that rounding hurts least.
//
// The second ones (LEVELS2) are nearly uniform, but for two subsets that share the zero and two that share the outermost
// level, so that every path can take these.
//
// For the encoder, in units of which a level has UNIT (1 or 2): at how many units it tries the largest magnitude of a
// block, in 8 bits (TRIALS, whose squared errors are divided by 2^SHIFT), and in 16 with either codebook (WIDE, WIDE2).
#define TURBO4_LEVELS  TURBO_32(2, 6, 10, 14, 18, 23, 27, 32, 37, 43, 49, 56, 65, 76, 90, 109)
#define TURBO4_LEVELS2 TURBO_32(0, 2, 15, 24, 34, 43, 52, 61, 71, 80, 90, 99, 108, 118, 127, 127)
#define TURBO4_UNIT    2
#define TURBO4_SHIFT   2
#define TURBO4_TRIALS  211, 218, 226, 233
#define TURBO4_WIDE    90, 103, 119, 137, 158, 181, 209, 241
#define TURBO4_WIDE2   152, 198, 218, 234, 254, 264, 274, 284

#define TURBO3_LEVELS  TURBO_16(4, 11, 19, 27, 37, 49, 66, 93)
#define TURBO3_LEVELS2 TURBO_16(0, 19, 40, 62, 84, 106, 127, 127)
#define TURBO3_UNIT    2
#define TURBO3_SHIFT   3
#define TURBO3_TRIALS  182, 195, 207, 221
#define TURBO3_WIDE    90, 104, 119, 136, 158, 182, 209, 241
#define TURBO3_WIDE2   178, 218, 254, 274, 284, 295, 305, 318

#define TURBO2_LEVELS  TURBO_8(9, 28, 52, 94)
#define TURBO2_LEVELS2 TURBO_8(0, 64, 127, 127)
#define TURBO2_UNIT    1
#define TURBO2_SHIFT   4
#define TURBO2_TRIALS  106, 121, 139, 160
#define TURBO2_WIDE    51, 63, 77, 93, 106, 121, 139, 160
#define TURBO2_WIDE2   84, 132, 152, 159, 165, 178, 190, 203

#define TURBO5_LEVELS \
    TURBO_64(1, 3, 5, 8, 10, 12, 14, 16, 19, 21, 24, 26, 29, 31, 34, 37, 39, 42, 46, 49, 52, 56, 60, 64, 69, 74, 80, 87, 95, \
             104, 114, 127)
#define TURBO5_LEVELS2 \
    TURBO_64(0, 1, 6, 10, 15, 19, 23, 27, 32, 36, 40, 44, 49, 53, 57, 61, 66, 70, 74, 78, 83, 87, 91, 95, 100, 104, 108, \
             112, 117, 121, 127, 127)
#define TURBO5_UNIT    2
#define TURBO5_SHIFT   0
#define TURBO5_TRIALS  245, 252, 259, 266
#define TURBO5_WIDE    104, 120, 138, 158, 182, 209, 241, 277
#define TURBO5_WIDE2   152, 198, 218, 234, 254, 264, 274, 284
