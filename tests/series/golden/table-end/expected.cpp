const std::vector<kind> kinds = {
    KIND_A,
    KIND_B, // last
    KIND_NEW,
};
void g() { use(kinds); }
