// llama-server: loads one model and completes prompts over HTTP, one at a time.

#include "arg.h"
#include "llama.h"

#include <arpa/inet.h>
#include <csignal>
#include <cstring>
#include <fstream>
#include <mutex>
#include <netinet/in.h>
#include <new>
#include <stdexcept>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

static constexpr size_t MAX_REQUEST = 8 << 20;

// -- JSON: the fields of one flat object, and strings out --------------------------------------------------------

static std::string json_string(const std::string & s) {
    std::string out = "\"";
    for (size_t i = 0; i < s.size();) {
        const unsigned char c = (unsigned char) s[i];
        size_t length = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
        for (size_t j = 1; j < length; j++) {
            length = i + j < s.size() && ((unsigned char) s[i + j] & 0xc0) == 0x80 ? length : 0;
        }
        if (length == 0) {
            out += "\\ufffd"; // a token can end inside a character
        } else if (c < 0x20 || c == '"' || c == '\\') {
            char escaped[8];
            snprintf(escaped, sizeof escaped, "\\u%04x", c);
            out += escaped;
        } else {
            out += s.substr(i, length);
        }
        i += length ? length : 1;
    }
    return out + "\"";
}

static std::string utf8(uint32_t code) {
    std::string s;
    if (code < 0x80) {
        return std::string(1, (char) code);
    }
    if (code < 0x800) {
        s += (char) (0xc0 | code >> 6);
    } else {
        s += (char) (0xe0 | code >> 12);
        s += (char) (0x80 | (code >> 6 & 0x3f));
    }
    return s + (char) (0x80 | (code & 0x3f));
}

// The string at text[at], which is a quotation mark; leaves `at` behind it.
static std::string read_string(const std::string & text, size_t & at) {
    std::string out;
    for (at++; at < text.size() && text[at] != '"'; at++) {
        if (text[at] != '\\') {
            out += text[at];
            continue;
        }
        const char c = ++at < text.size() ? text[at] : 0;
        if (c == 'u' && at + 4 < text.size()) {
            out += utf8((uint32_t) strtoul(text.substr(at + 1, 4).c_str(), nullptr, 16));
            at += 4;
        } else {
            const char * known = c ? strchr("n\nt\tr\rb\bf\f", c) : nullptr;
            out += known ? known[1] : c;
        }
    }
    if (at++ >= text.size()) {
        throw std::runtime_error("the request ends inside a string");
    }
    return out;
}

// The value of a key of the outermost object: a string's content, or the text of a number or a word.
static std::string field(const std::string & text, const std::string & key) {
    int depth = 0;
    std::string last;
    for (size_t at = 0; at < text.size();) {
        if (text[at] == '"') {
            last = read_string(text, at);
            continue;
        }
        depth += (text[at] == '{' || text[at] == '[') - (text[at] == '}' || text[at] == ']');
        if (text[at++] == ':' && depth == 1 && last == key) {
            at = text.find_first_not_of(" \t\r\n", at);
            if (at != std::string::npos && text[at] == '"') {
                return read_string(text, at);
            }
            return at == std::string::npos ? "" : text.substr(at, text.find_first_of(",}] \t\r\n", at) - at);
        }
    }
    return "";
}

// -- one completion ---------------------------------------------------------------------------------------------

struct server {
    common_params                  given;
    std::shared_ptr<llama_model>   model;
    std::shared_ptr<llama_context> ctx;
    std::mutex                     busy;
    std::vector<int32_t>           read; // the last prompt, whose cells the cache still has

    // Calls on_piece with each token's text and returns how the completion ended, as JSON fields.
    template <typename F> std::string complete(const std::string & request, F on_piece) {
        const std::lock_guard<std::mutex> lock(busy);
        const std::vector<int32_t> prompt = llama_tokenize(*model, field(request, "prompt"));
        const std::string wanted = field(request, "n_predict");
        const long n_predict = wanted.empty() ? -1 : strtol(wanted.c_str(), nullptr, 10);
        const uint32_t n_ctx = llama_n_ctx(*ctx), n_prompt = (uint32_t) prompt.size();
        if (prompt.empty() || n_prompt >= n_ctx) {
            throw std::runtime_error("a prompt of " + std::to_string(n_prompt) + " tokens does not fit a context of " + std::to_string(n_ctx));
        }
        read = prompt;
        const uint32_t n_keep = std::min(given.keep, n_ctx - 4);
        uint32_t n_past = 0, n_decoded = 0;
        int32_t next = 0;
        for (const int32_t token : prompt) {
            next = llama_decode(*ctx, token, n_past++);
        }
        const char * why = "limit";
        bool listening = true;
        while (listening && (n_predict < 0 || n_decoded < (uint64_t) n_predict)) {
            if (llama_token_is_eog(*model, next)) {
                why = "eos";
                break;
            }
            n_decoded++;
            listening = on_piece(llama_token_to_piece(*model, next));
            if (n_past == n_ctx) {
                if (!given.shift) {
                    break;
                }
                const uint32_t n_left = n_past - n_keep, n_discard = n_left / 2;
                fprintf(stderr, "slot context shift, n_keep = %u, n_left = %u, n_discard = %u\n", n_keep, n_left, n_discard);
                llama_memory_shift(*ctx, n_keep, n_discard, n_past);
                n_past -= n_discard;
            }
            next = llama_decode(*ctx, next, n_past++);
        }
        return "\"stop\":true,\"stop_type\":\"" + std::string(why) + "\",\"tokens_predicted\":" + std::to_string(n_decoded) +
               ",\"tokens_evaluated\":" + std::to_string(n_prompt);
    }

    // Writes what the cache holds of the last prompt to the file that the request names; returns its length.
    size_t save(const std::string & request) {
        const std::lock_guard<std::mutex> lock(busy);
        const std::string name = field(request, "filename");
        const uint32_t head[] = { 0x67677371, 2, (uint32_t) read.size() };
        std::string data((const char *) head, sizeof head);
        data.append((const char *) read.data(), read.size() * sizeof read[0]);
        data += llama_state_seq_get_data(*ctx, (uint32_t) read.size());
        FILE * file = given.slots.empty() || name.find('/') != std::string::npos ? nullptr : fopen((given.slots + name).c_str(), "wb");
        if (file == nullptr || fwrite(data.data(), 1, data.size(), file) != data.size() || fclose(file) != 0) {
            throw std::runtime_error("the slot cannot be saved");
        }
        return data.size();
    }

    // Reads such a file again; returns how many tokens it is of.
    size_t restore(const std::string & request) {
        const std::lock_guard<std::mutex> lock(busy);
        const std::string name = field(request, "filename");
        std::ifstream in(given.slots.empty() || name.find('/') != std::string::npos ? "" : given.slots + name, std::ios::binary);
        const std::string data { std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>() };
        uint32_t head[3] = {};
        memcpy(head, data.data(), std::min(data.size(), sizeof head));
        const size_t tokens = head[2] * sizeof read[0];
        if (data.size() < sizeof head + tokens || llama_state_seq_set_data(*ctx, data.substr(sizeof head + tokens)) == 0) {
            throw std::runtime_error("the slot cannot be restored");
        }
        read.resize(head[2]);
        memcpy(read.data(), data.data() + sizeof head, tokens);
        return read.size();
    }
};

// -- HTTP -------------------------------------------------------------------------------------------------------

static bool send_all(int fd, const std::string & data) {
    for (size_t sent = 0; sent < data.size();) {
        const ssize_t n = send(fd, data.data() + sent, data.size() - sent, 0);
        if (n <= 0) {
            return false;
        }
        sent += (size_t) n;
    }
    return true;
}

static bool reply(int fd, const char * status, const std::string & body) {
    return send_all(fd, std::string("HTTP/1.1 ") + status + "\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " +
        std::to_string(body.size()) + "\r\n\r\n" + body);
}

static std::string read_request(int fd) {
    std::string data;
    size_t total = std::string::npos;
    char buffer[16384];
    while (data.size() < total && data.size() < MAX_REQUEST) {
        const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
        if (n <= 0) {
            return "";
        }
        data.append(buffer, (size_t) n);
        const size_t end = data.find("\r\n\r\n");
        if (total == std::string::npos && end != std::string::npos) {
            std::string head = data.substr(0, end);
            for (char & c : head) {
                c = (char) tolower(c);
            }
            const size_t length = head.find("\r\ncontent-length:");
            total = end + 4 + (length == std::string::npos ? 0 : strtoul(head.c_str() + length + 17, nullptr, 10));
        }
    }
    return data;
}

static void serve(server & s, int fd) {
    const std::string request = read_request(fd);
    const std::string line = request.substr(0, request.find("\r\n"));
    if (line.rfind("GET /health ", 0) == 0) {
        reply(fd, "200 OK", "{\"status\":\"ok\"}");
    } else if (line.rfind("POST /slots/0?action=save ", 0) == 0 || line.rfind("POST /slots/0?action=restore ", 0) == 0) {
        const bool save = line.find("=save") != std::string::npos;
        const std::string body = request.substr(request.find("\r\n\r\n") + 4);
        try {
            reply(fd, "200 OK", (save ? "{\"n_written\":" + std::to_string(s.save(body)) : "{\"n_restored\":" + std::to_string(s.restore(body))) + "}");
        } catch (const std::exception & error) {
            reply(fd, "400 Bad Request", "{\"error\":{\"message\":" + json_string(error.what()) + "}}");
        }
    } else if (line.rfind("POST /completion ", 0) == 0) {
        const std::string body = request.substr(request.find("\r\n\r\n") + 4);
        bool streaming = false;
        std::string content;
        try {
            const bool stream = field(body, "stream") == "true";
            const std::string end = s.complete(body, [&](const std::string & piece) {
                if (!stream) {
                    content += piece;
                    return true;
                }
                const std::string head = streaming ? "" : "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
                streaming = true;
                return send_all(fd, head + "data: {\"content\":" + json_string(piece) + ",\"stop\":false}\n\n");
            });
            if (streaming) {
                send_all(fd, "data: {\"content\":\"\"," + end + "}\n\n");
            } else {
                reply(fd, "200 OK", "{\"content\":" + json_string(content) + "," + end + "}");
            }
        } catch (const std::exception & error) {
            reply(fd, "400 Bad Request", "{\"error\":{\"message\":" + json_string(error.what()) + "}}");
        }
    } else if (!line.empty()) {
        reply(fd, "404 Not Found", "{\"error\":{\"message\":\"there is nothing here\"}}");
    }
    close(fd);
}

// A socket that listens at the address. Throws std::runtime_error.
static int listen_at(const std::string & host, uint32_t port) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port   = htons((uint16_t) port);
    const int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1 ||
        bind(listener, (sockaddr *) &address, sizeof address) != 0 || listen(listener, 16) != 0) {
        throw std::runtime_error("error: cannot listen at " + host + ":" + std::to_string(port) + ": " + strerror(errno));
    }
    return listener;
}

static void load(server & s) {
    try {
        s.model = llama_model_load_from_file(s.given.model);
    } catch (const std::runtime_error & reason) {
        throw std::runtime_error("error loading model " + s.given.model + ": " + reason.what());
    }
    try {
        s.ctx = llama_init_from_model(s.model, common_context_params_to_llama(s.given));
    } catch (const std::bad_alloc & none) {
        throw std::runtime_error("error: no memory for a cache of " + std::to_string(s.given.cells) + " cells");
    }
}

int main(int count, char ** words) try {
    if (count == 2 && std::string(words[1]) == "--version") {
        fprintf(stderr, "version: miniature (build %d)\n", LLAMA_BUILD_NUMBER);
        return 0;
    }
    signal(SIGPIPE, SIG_IGN);
    server s;
    s.given = read_options(count, words);
    load(s);
    const int listener = listen_at(s.given.host, s.given.port);
    fprintf(stderr, "%s serves at %s:%u\n", s.given.model.c_str(), s.given.host.c_str(), s.given.port);
    for (;;) {
        const int fd = accept(listener, nullptr, nullptr);
        if (fd >= 0) {
            std::thread(serve, std::ref(s), fd).detach();
        }
    }
} catch (const std::exception & reason) {
    fprintf(stderr, "%s\n", reason.what());
    return 1;
}
