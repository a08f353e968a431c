// enum kind { KIND_COUNT } in a comment is no scope
enum kind;
enum kind_flags { KIND_COUNT_FLAG = 1 };
    enum kind
    {
        KIND_A    = 0, /* KIND_COUNT is below */
        KIND_COUNT= 7,
    };
