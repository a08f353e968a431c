// What needs no API key. The miniature asks nobody for one.

#include <set>
#include <string>

struct server_http_req {
    std::string method;
    std::string path;
};

bool is_public(const server_http_req & req) {
    static const std::set<std::string> get_public_endpoints = {"/health", "/models"};
    if (get_public_endpoints.count(req.path)) {
        return true;
    }
    return false;
}
