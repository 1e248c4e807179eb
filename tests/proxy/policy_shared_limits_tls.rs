//! Limits that all replicas count together, in a real Redis that speaks TLS and knows users: whom it is believed, and who is let in.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::policy_shared_limits::OBJECTS;
use super::redis_server::Redis;
use super::server::{Server, eventually};

const CONNECTED: &str = "\nfloodway_rate_limit_connected 1\n";
const PASSWORD: &str = "c4n4ry-of-redis";

/// An authority in a file; what it signs for these names goes to two others.
fn authority(folder: &Path, name: &str, names: &[&str]) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    fs::write(folder.join(format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let (params, key) = (CertificateParams::new(names).unwrap(), KeyPair::generate().unwrap());
    fs::write(folder.join(format!("{name}-server.pem")), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(folder.join(format!("{name}-server.key")), key.serialize_pem()).unwrap();
}

/// The program with these settings of its Redis.
fn program(folder: &Path, redis: &str) -> Server {
    // A folder of its own for each, so that none is overwritten while it is read.
    let own = tempfile::tempdir_in(folder).unwrap().keep();
    fs::create_dir(own.join("objects")).unwrap();
    fs::write(own.join("objects/all.yaml"), OBJECTS).unwrap();
    let settings = own.join("settings.yaml");
    fs::write(&settings, format!("rateLimits: {{redis: {redis}}}\n")).unwrap();
    Server::start(&own.join("objects"), &["--config", settings.to_str().unwrap(), "--log", "trace"])
}

#[test]
fn a_redis_with_tls_is_believed_by_its_authority_and_its_name_and_believes_users_with_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    authority(folder, "right", &["redis.test", "127.0.0.1"]);
    authority(folder, "wrong", &["redis.test"]);
    let file = |name: &str| folder.join(name).display().to_string();
    fs::write(file("password"), format!("{PASSWORD}\n")).unwrap();
    fs::write(file("guessed"), "c4n4ry-guessed\n").unwrap();
    // As docs/settings.md has it: nothing else may be needed.
    let user = format!("on >{PASSWORD} ~floodway:* +eval +evalsha +get +set +time +ping +select");
    let mut more = vec!["--requirepass", "c4n4ry-of-others", "--user", "floodway"];
    more.extend(user.split(' '));
    let (certificate, key) = (file("right-server.pem"), file("right-server.key"));
    let Some((_redis, secure)) = Redis::start_with_tls(&certificate, &key, &more) else { return };

    let with = |ca: &str, name: &str, user: &str, password: &str| {
        let tls = format!("{{caFile: {}{name}}}", file(ca));
        let who = format!("username: {user}, passwordFile: {}", file(password));
        program(folder, &format!("{{address: \"{secure}\", tls: {tls}, {who}, timeout: 10s}}"))
    };
    let connected = |server: &Server| {
        eventually("it is connected", || server.admin("/metrics").1.contains(CONNECTED));
    };
    let named = with("right.pem", ", serverName: redis.test", "floodway", "password");
    let by_address = with("right.pem", "", "floodway", "password");
    for server in [&named, &by_address] {
        connected(server);
    }
    let answers = [&named, &by_address, &named, &by_address].map(|server| server.get("/").0);
    assert_eq!(answers, [200, 200, 429, 429]);

    fs::copy(file("wrong.pem"), file("replaced.pem")).unwrap();
    let mut refused = Vec::new();
    for (ca, name, user, password, why) in [
        ("replaced.pem", "", "floodway", "password", "its certificate is of an unknown authority"),
        ("right.pem", ", serverName: other.test", "floodway", "password", "its certificate is for another name"),
        ("right.pem", "", "floodway", "guessed", "it does not take the user and the password"),
        ("right.pem", "", "nobody", "password", "it does not take the user and the password"),
        ("none.pem", "", "floodway", "password", "the file of rateLimits.redis.tls.caFile cannot be used"),
    ] {
        let server = with(ca, name, user, password);
        eventually(&format!("{why}: {}", server.said()), || server.said().contains(why));
        assert!(!server.admin("/metrics").1.contains(CONNECTED), "{why}");
        assert_eq!(server.get("/").0, 503, "{why}");
        refused.push(server);
    }
    // Read whenever a connection is made: the right authority counts without a restart.
    fs::copy(file("right.pem"), file("replaced.pem")).unwrap();
    connected(&refused[0]);
    assert_eq!(refused[0].get("/").0, 429);
    for server in refused.iter().chain([&named, &by_address]) {
        let told = [server.said(), server.admin("/metrics").1, server.admin("/config_dump").1].concat();
        assert!(!told.contains("c4n4ry"), "{told}");
    }
}
