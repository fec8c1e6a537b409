//! Why directives are not carried over: the reason of each that people write, so that none goes without one.

use crate::tools::import::findings::{ACCESS_LOST, Code, LIMIT_LOST, UNKNOWN_DIRECTIVE};

/// The reason why a directive of this name is not carried.
pub(super) fn why_not(name: &str) -> Option<&'static str> {
    if name.contains("_by_lua") {
        return Some("programs inside nginx have no counterpart");
    }
    let groups = GROUPS.iter().find(|(names, _)| names.split_whitespace().any(|known| known == name));
    let starts = STARTS.iter().find(|(start, _)| name.starts_with(start));
    groups.or(starts).map(|(_, why)| *why)
}

/// The finding for a directive of this name that is not carried, if it controls access, limits a rate, or is unknown.
pub(super) fn lost(name: &str) -> Option<(Code, &'static str, &'static str)> {
    let is = |names: &str| names.split_whitespace().any(|known| known == name);
    if is(ACCESS) || name.ends_with("_by_lua_block") || name.ends_with("_by_lua_file") || name.ends_with("_by_lua") {
        let title =
            "clients were judged here by more than their address, which is lost: now all that reach the listener pass";
        let repair = "keep clients away by `allow` and `allow_users`, or leave nginx in front";
        return Some((ACCESS_LOST, title, repair));
    }
    if is(LIMITS) {
        let title = "a limit of rate is lost: egret slows nobody down";
        let repair = "`max_connections` of a listener bounds all its clients together";
        return Some((LIMIT_LOST, title, repair));
    }
    let title = "the importer does not know this directive, and cannot say what is lost with it";
    let repair = "see in the documentation of its module whether it is needed";
    why_not(name).is_none().then_some((UNKNOWN_DIRECTIVE, title, repair))
}

const ACCESS: &str = "auth_basic auth_request auth_jwt satisfy secure_link secure_link_md5 valid_referers limit_except if \
                      js_access js_preread perl access_by_lua";
const LIMITS: &str = "limit_req limit_rate proxy_limit_rate proxy_upload_rate proxy_download_rate";

/// Whether it is one of nginx's own names.
pub(in crate::tools::import) fn is_known(name: &str) -> bool {
    why_not(name).is_some() || ["worker_shutdown_timeout", "protocol", "starttls"].contains(&name)
}

pub(super) const UNKNOWN: &str = "this is a directive that the importer does not know";

type Group = (&'static str, &'static str);

const GROUPS: &[Group] = &[
    ("user group chroot", "the service manager sets the user (systemd: `User=`)"),
    ("pid daemon master_process lock_file", "egret is one process in the foreground; its supervisor knows it"),
    ("load_module", "everything that egret does is in it"),
    ("env", "variables of the environment can be used in the file as they are"),
    ("worker_processes", "threads: `[runtime] workers`; one per processor is the default"),
    (
        "events worker_connections worker_rlimit_nofile use multi_accept accept_mutex worker_aio_requests",
        "connections are bounded by `[limits] max_connections`; the default is what open files allow",
    ),
    (
        "worker_priority worker_cpu_affinity worker_rlimit_core pcre_jit thread_pool timer_resolution working_directory",
        "a matter of the process and its supervisor",
    ),
    ("error_log access_log log_format log_not_found open_log_file_cache", "egret logs to its output: see `[log]`"),
    ("resolver_timeout", "names are resolved within `originate_timeout`"),
    ("include", "what it brings follows it"),
    (
        "map_hash_bucket_size map_hash_max_size variables_hash_max_size variables_hash_bucket_size",
        "a size of tables that egret does not have",
    ),
    ("zone", "servers are shared by all threads without a zone"),
    (
        "keepalive keepalive_requests keepalive_time keepalive_timeout keepalive_disable",
        "connections of HTTP are kept by client and server; egret carries them as long as they last",
    ),
    ("least_conn hash ip_hash random least_time sticky", "egret takes the first server that answers"),
    ("queue state ntlm health_check match", "egret has nothing of the kind yet"),
    ("map split_clients geo geoip_country geoip2", "its variable is not used by anything that was carried over"),
    ("hostnames volatile default", "its map is not used by anything that was carried over"),
    ("set", "its variable is not used by anything that was carried over"),
    ("if limit_except", "requests are not looked at: a stream of bytes has none"),
    (
        "server_name server_names_hash_bucket_size server_names_hash_max_size \
      server_tokens types_hash_max_size \
      types_hash_bucket_size types default_type sendfile tcp_nopush aio directio open_file_cache reset_timedout_connection \
      merge_slashes underscores_in_headers ignore_invalid_headers large_client_header_buffers client_header_buffer_size \
      client_header_timeout client_body_timeout client_max_body_size client_body_buffer_size client_body_temp_path \
      send_timeout output_buffers postpone_output charset source_charset http2 http3 http2_max_concurrent_streams \
      lingering_close lingering_time lingering_timeout connection_pool_size request_pool_size absolute_redirect \
      port_in_redirect recursive_error_pages chunked_transfer_encoding etag if_modified_since max_ranges msie_padding \
      server_name_in_redirect disable_symlinks satisfy internal stub_status status api real_ip_header \
      set_real_ip_from real_ip_recursive",
        "this is about requests of HTTP, which egret does not read",
    ),
    (
        "root alias index try_files return rewrite error_page autoindex expires etag add_header add_trailer sub_filter \
      sub_filter_once empty_gif mirror break rewrite_log uninitialized_variable_warn more_set_headers",
        "nginx answers or changes requests here; egret carries bytes, and changes none",
    ),
    (
        "auth_basic auth_basic_user_file auth_request auth_request_set auth_jwt auth_delay secure_link limit_req \
      limit_req_zone limit_req_status limit_rate limit_rate_after valid_referers",
        "requests are not looked at; use `allow` and `allow_users` to say which clients may connect",
    ),
    (
        "limit_conn_zone limit_conn limit_conn_status limit_conn_log_level limit_conn_dry_run",
        "`max_connections` of a listener bounds all its clients together",
    ),
    (
        "proxy_set_header grpc_set_header proxy_hide_header proxy_pass_header proxy_ignore_headers proxy_set_body \
      proxy_pass_request_headers proxy_pass_request_body proxy_method proxy_http_version proxy_redirect \
      proxy_cookie_domain proxy_cookie_path proxy_cookie_flags proxy_intercept_errors proxy_headers_hash_max_size \
      proxy_headers_hash_bucket_size proxy_ignore_client_abort proxy_force_ranges grpc_intercept_errors",
        "requests go through as the client wrote them: egret carries bytes, and changes none",
    ),
    (
        "proxy_buffering proxy_buffers proxy_buffer_size proxy_busy_buffers_size proxy_request_buffering \
      proxy_max_temp_file_size proxy_temp_path proxy_temp_file_write_size preread_buffer_size proxy_limit_rate \
      grpc_buffer_size proxy_send_lowat",
        "egret has buffers of its own and a bound for them",
    ),
    (
        "proxy_cache proxy_cache_path proxy_cache_valid proxy_cache_key proxy_cache_bypass proxy_no_cache \
      proxy_cache_use_stale proxy_cache_lock proxy_store proxy_cache_methods proxy_cache_min_uses",
        "egret keeps nothing of what it carries",
    ),
    (
        "proxy_next_upstream_tries grpc_next_upstream_tries",
        "servers are tried within `originate_timeout`, however many",
    ),
    ("proxy_socket_keepalive so_keepalive grpc_socket_keepalive", "egret watches dead peers by its own keep-alive"),
    ("tcp_nodelay", "always on"),
    ("proxy_requests proxy_responses", "about datagrams, which egret does not carry"),
    ("proxy_upload_rate proxy_download_rate", "egret does not slow streams down"),
    ("preread_timeout ssl_preread", "egret takes plain TCP, and reads no hello of clients"),
    ("proxy_session_drop", "streams last as long as their server; see `max_lifetime`"),
    (
        "proxy_ssl_certificate_cache grpc_ssl_certificate_cache",
        "certificates are read once, and again when their files change",
    ),
    (
        "js_import js_access js_preread js_filter js_set js_content js_path js_var perl perl_set lua_package_path \
      lua_shared_dict lua_ssl_trusted_certificate",
        "programs inside nginx have no counterpart",
    ),
    ("mail", "mail is not what egret carries"),
    ("fastcgi_pass scgi_pass memcached_pass uwsgi_pass", "this protocol of nginx is not spoken by TLS"),
    ("upstream server", "nothing that was carried over uses it"),
    ("location", "nothing goes out of it by TLS"),
    ("listen", "there is nothing that it could lead to"),
    ("allow deny", "nothing that was carried over is reached by way of it"),
    ("resolver", "egret has one set of name servers: `[dns] servers`"),
    ("http stream", "nothing goes out of it by TLS"),
    ("proxy_pass grpc_pass", "it does not lead to TLS"),
    ("ssl_certificate ssl_certificate_key", "TLS of clients ends elsewhere: egret takes plain TCP"),
];

const STARTS: &[Group] = &[
    ("ssl_", "TLS of clients ends elsewhere: egret takes plain TCP"),
    ("gzip", "egret carries bytes, and changes none"),
    ("brotli", "egret carries bytes, and changes none"),
    ("fastcgi_", "this protocol of nginx is not spoken by TLS"),
    ("scgi_", "this protocol of nginx is not spoken by TLS"),
    ("uwsgi_", "no way out that was carried over uses it"),
    ("grpc_", "no way out that was carried over uses it"),
    ("proxy_ssl", "no way out that was carried over uses it"),
    ("proxy_", "no way out that was carried over uses it"),
    ("mail_", "mail is not what egret carries"),
    ("lua_", "programs inside nginx have no counterpart"),
    ("opentracing", "egret writes one line of its log for each connection"),
    ("otel_", "egret writes one line of its log for each connection"),
    ("vod", "egret carries bytes, and changes none"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_word_or_beginning() {
        assert!(why_not("ssl_protocols").is_some_and(|why| why.contains("plain TCP")));
        assert!(why_not("user").is_some());
        assert_eq!(why_not("no_such_thing"), None);
    }
}
