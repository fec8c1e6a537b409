# Rules for `egret check --policy config/policy/production.rego --policy-parameter environment=production`.
# `input.config` is the configuration with every default filled in; docs/checks.md shows what it looks like.
package main

import rego.v1

production if not input.parameters.environment in {"development", "test"}

# Verification off is prohibited in production, and so is verification that only reports.
deny contains {"msg": msg, "upstream": name} if {
	production
	some name, upstream in input.config.upstreams
	upstream.tls.verify != "full"
	msg := sprintf("verify = \"%v\" is prohibited in production: \"%v\"", [upstream.tls.verify, name])
}

# A key that other users of the machine may read is anybody's.
deny contains {"msg": msg, "identity": name} if {
	production
	some name, identity in input.config.identities
	identity.allow_loose_key_permissions
	msg := sprintf("the key of %v may be read by others", [name])
}

# Whoever reaches a listener borrows its identity.
warn contains {"msg": msg, "listener": listener.name} if {
	some listener in input.config.listeners
	not listener.loopback
	input.config.upstreams[listener.upstream].tls.identity
	msg := sprintf("other machines may use the identity behind %v", [listener.name])
}
