package config

import (
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// An address may hold a password that somebody put there, so no message here
// repeats one that could: it names the entry by its position instead.

const credentialsInside = "holds credentials, which logs and process lists would show: take them out, and use the keys user and password_file"

// brokerURLs checks the AMQP addresses of a cluster's nodes.
func (c *checker) brokerURLs(key string, urls []string, least int) {
	c.list(key, urls, least, 16)
	var vhosts []string
	for i, text := range urls {
		if strings.Contains(text, "@") {
			c.bad(key, "entry %d %s", i+1, credentialsInside)
			continue
		}
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Scheme != "amqp" && u.Scheme != "amqps" || !address(u.Host, true):
			c.bad(key, "entry %d is no AMQP address: want amqp://host:port/vhost, or amqps:// for TLS", i+1)
			continue
		case u.RawQuery != "" || u.Fragment != "":
			c.bad(key, "entry %d has options after ? or #: take them out, there are keys for what can be set", i+1)
		case strings.Contains(strings.TrimPrefix(u.EscapedPath(), "/"), "/"):
			c.bad(key, "entry %d has more than one vhost: write a / inside its name as %%2F", i+1)
		}
		if vhost := strings.TrimPrefix(u.Path, "/"); !slices.Contains(vhosts, vhost) {
			vhosts = append(vhosts, vhost)
		}
	}
	if len(vhosts) > 1 {
		c.bad(key, "the entries name different vhosts (%s), which share no queues: name one cluster's nodes only", quoted(vhosts))
	}
}

// reservedMongoOptions are decided by the daemon: a weaker one would lose
// confirmed jobs in silence.
var reservedMongoOptions = []string{"w", "j", "journal", "wtimeoutms", "readconcernlevel", "readpreference"}

// mongoURI checks a MongoDB connection string. It is taken apart by hand: its
// list of hosts is not what package net/url takes for a host.
//
// Source: the MongoDB manual, "Connection Strings".
func (c *checker) mongoURI(key, text string) {
	if strings.Contains(text, "@") {
		c.bad(key, "it %s", credentialsInside)
		return
	}
	rest, plain := strings.CutPrefix(text, "mongodb://")
	if !plain {
		var srv bool
		if rest, srv = strings.CutPrefix(text, "mongodb+srv://"); !srv {
			c.bad(key, "it is no MongoDB address: want mongodb://host:port,host:port/?replicaSet=name")
			return
		}
	}
	hosts, options, _ := strings.Cut(rest, "?")
	hosts, _, _ = strings.Cut(hosts, "/")
	for _, host := range strings.Split(hosts, ",") {
		if !address(host, true) {
			c.bad(key, "it is no MongoDB address: want mongodb://host:port,host:port/?replicaSet=name")
			return
		}
	}
	values, err := url.ParseQuery(options)
	if err != nil {
		c.bad(key, "what follows the ? cannot be read: want name=value, joined by &")
		return
	}
	for name := range values {
		switch lower := strings.ToLower(name); {
		case slices.Contains(reservedMongoOptions, lower):
			c.bad(key, "the option %s is settled by the daemon, which needs majority writes and reads: take it out", name)
		case strings.Contains(lower, "password"):
			c.bad(key, "it %s", credentialsInside)
		}
	}
}

// database checks a MongoDB database's name.
//
// Source: the MongoDB manual, "Naming Restrictions".
func (c *checker) database(key, name string) {
	if name == "" || len(name) > 63 || !printable(name) || strings.ContainsAny(name, `/\. "$*<>:|?`) {
		c.bad(key, `%q is no database name: want 1 to 63 bytes without spaces and / \ . " $ * < > : | ?`, name)
	}
}

// redisAddresses checks a list of host:port.
func (c *checker) redisAddresses(key string, addresses []string) {
	for i, text := range addresses {
		switch {
		case strings.Contains(text, "@"):
			c.bad(key, "entry %d %s", i+1, credentialsInside)
		case !address(text, false):
			c.bad(key, "entry %d is no address: want host:port, without redis://", i+1)
		}
	}
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
