const std::vector<kind> kinds = {
    KIND_A,
    KIND_B, // last
};
void g() { use(kinds); }
