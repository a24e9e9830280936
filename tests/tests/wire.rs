//! The wire protocol against real servers: logins, TLS, results of all sizes, errors.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use holdfast_mysql::clone::CloneConn;
use holdfast_mysql::{Conn, ConnectOptions, DumpFrom, DumpOptions, Endpoint, Error, Next, TlsMode};
use holdfast_tests::{Engine, TestServer};

fn tcp(server: &TestServer, user: &str, password: &str, tls: TlsMode) -> ConnectOptions {
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: server.port() };
    ConnectOptions::new(endpoint, user).password(password.into()).tls_mode(tls)
}

fn who(options: &ConnectOptions) -> Result<(String, bool), Error> {
    let mut conn = Conn::connect(options)?;
    conn.ping()?;
    let user = conn.query_text("SELECT CURRENT_USER()")?.unwrap();
    let tls = conn.is_tls();
    conn.close()?;
    Ok((user, tls))
}

#[test]
fn every_login_of_mysql_works_with_tls_and_without() {
    let server = TestServer::start(Engine::MySql);
    server.run(&[
        "CREATE USER fast@'%' IDENTIFIED WITH caching_sha2_password BY 'a-Password-1'",
        "CREATE USER old@'%' IDENTIFIED WITH sha256_password BY 'a-Password-2'",
        "CREATE USER none@'%' IDENTIFIED BY ''",
        "CREATE USER tls@'%' IDENTIFIED BY 'a-Password-3' REQUIRE SSL",
    ]);
    for (user, password) in [("fast", "a-Password-1"), ("old", "a-Password-2"), ("none", "")] {
        for mode in [TlsMode::Disabled, TlsMode::Required] {
            // The second time the server has the hash in its cache; after FLUSH it hasn't.
            let options = tcp(&server, user, password, mode);
            if mode == TlsMode::Disabled && !password.is_empty() {
                // It does not know the hash yet, so it wants the password: not under a key that anybody may have sent.
                let error = who(&options).unwrap_err();
                assert!(matches!(&error, Error::Auth { reason, .. } if reason.contains("TLS")), "{error}");
            }
            let options = options.trust_key_as_sent();
            for _ in 0..2 {
                let (name, tls) = who(&options).unwrap();
                assert_eq!((name.as_str(), tls), (format!("{user}@%").as_str(), mode == TlsMode::Required));
            }
            server.run(&["FLUSH PRIVILEGES"]);
        }
        let error = who(&tcp(&server, user, "wrong", TlsMode::Preferred)).unwrap_err();
        assert_eq!(error.code(), Some(1045), "{error}");
    }
    assert!(who(&tcp(&server, "tls", "a-Password-3", TlsMode::Preferred)).unwrap().1);
    assert_eq!(who(&tcp(&server, "tls", "a-Password-3", TlsMode::Disabled)).unwrap_err().code(), Some(1045));
}

#[test]
fn the_authority_of_a_server_is_checked_when_asked_for() {
    let server = TestServer::start(Engine::MySql);
    server.run(&["CREATE USER u@'%' IDENTIFIED BY 'a-Password-1'"]);
    let ca = server.datadir().join("ca.pem");
    if !ca.exists() {
        // The template was made without certificates: then TLS that must be trusted is refused.
        let options = tcp(&server, "u", "a-Password-1", TlsMode::VerifyCa);
        assert!(matches!(who(&options).unwrap_err(), Error::Tls { .. }));
        return;
    }
    let mut options = tcp(&server, "u", "a-Password-1", TlsMode::VerifyCa);
    options.tls.ca = Some(ca);
    assert!(who(&options).unwrap().1);
    options.tls.mode = TlsMode::VerifyIdentity;
    assert!(matches!(who(&options).unwrap_err(), Error::Tls { .. }), "its certificate names no host");
}

#[test]
fn the_logins_of_mariadb_work() {
    let server = TestServer::start_with(Engine::MariaDb, &["--plugin-load-add=auth_ed25519"]);
    let name = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    server.run(&[
        "CREATE USER native@'%' IDENTIFIED BY 'a-Password-1'",
        "CREATE USER ed@'%' IDENTIFIED VIA ed25519 USING PASSWORD('a password of any length at all, longer than 32')",
        &format!("CREATE USER IF NOT EXISTS `{name}`@localhost IDENTIFIED VIA unix_socket"),
    ]);
    for (user, password) in
        [("native", "a-Password-1"), ("ed", "a password of any length at all, longer than 32")]
    {
        assert_eq!(who(&tcp(&server, user, password, TlsMode::Preferred)).unwrap().0, format!("{user}@%"));
        assert_eq!(who(&tcp(&server, user, "wrong", TlsMode::Preferred)).unwrap_err().code(), Some(1045));
    }
    let socket = ConnectOptions::new(Endpoint::Unix(server.socket().to_path_buf()), name.as_str());
    assert_eq!(who(&socket).unwrap().0, format!("{name}@localhost"));
}

fn packets_of_every_size_pass_both_ways(engine: Engine) {
    let server = TestServer::start_with(engine, &["--max-allowed-packet=64M"]);
    let mut conn = server.root();
    for len in [0, 1, 250, 251, 65_535, 65_536, (1 << 24) - 16, (1 << 24) - 1, 1 << 24, 40 << 20] {
        let text: Vec<u8> = (0..len).map(|i| b'a' + (i % 26) as u8).collect();
        let mut sql = b"SELECT '".to_vec();
        sql.extend_from_slice(&text);
        sql.extend_from_slice(b"', NULL, ''");
        let result = conn.query(&sql).unwrap();
        assert_eq!(result.rows[0], [Some(text), None, Some(Vec::new())], "length {len}");
    }
    let mut sum = 0u64;
    let rows = "WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i FROM n";
    conn.query_each::<Error>(rows, |row| {
        sum += row.text(0).unwrap().parse::<u64>().unwrap();
        Ok(())
    })
    .unwrap();
    assert_eq!(sum, 900 * 901 / 2);
    let error = conn.query("SELECT no_such_column").unwrap_err();
    assert_eq!(error.code(), Some(1054));
    assert_eq!(conn.query_text("SELECT 7").unwrap().as_deref(), Some("7"), "in step after an error");
    conn.reset().unwrap();
    assert_eq!(conn.query_text("SELECT DATABASE()").unwrap(), None);
}

#[test]
fn packets_of_every_size_pass_both_ways_mysql() {
    packets_of_every_size_pass_both_ways(Engine::MySql);
}

#[test]
fn packets_of_every_size_pass_both_ways_mariadb() {
    packets_of_every_size_pass_both_ways(Engine::MariaDb);
}

#[test]
fn a_wait_ends_at_its_deadline_and_a_cut_at_once() {
    let server = TestServer::start(Engine::MariaDb);
    let mut conn = server.root();
    conn.set_read_timeout(Duration::from_millis(300));
    let begin = Instant::now();
    assert!(conn.query("SELECT SLEEP(120)").unwrap_err().is_timeout());
    assert!(begin.elapsed() < Duration::from_secs(50));
    assert!(matches!(conn.query("SELECT 1").unwrap_err(), Error::Poisoned { .. }));

    let mut conn = server.root();
    let cut = conn.interrupter();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            cut.interrupt();
        });
        assert!(conn.query("SELECT SLEEP(120)").unwrap_err().is_network());
    });
    assert!(begin.elapsed() < Duration::from_secs(50));
}

fn a_dump_from_a_file_that_is_not_there_is_error_1236(engine: Engine) {
    let server = TestServer::start(engine);
    let dump = |file: &str, offset| {
        let conn = Conn::connect(&server.backup_options()).unwrap();
        let from = DumpFrom::Position { file: file.to_owned(), offset };
        let mut options = DumpOptions::new(77_001);
        options.until_end = true;
        conn.dump(&from, &options)
            .and_then(|mut stream| stream.next_event(Instant::now() + Duration::from_secs(120)))
    };
    assert_eq!(dump("nothing.000001", 4).unwrap_err().code(), Some(1236));
    let mut root = server.root();
    let file = root.query_text("SHOW BINARY LOGS").unwrap().unwrap();
    assert_eq!(dump(&file, 1 << 30).unwrap_err().code(), Some(1236));
    assert!(matches!(dump(&file, 4).unwrap(), Next::Event(_)));
}

#[test]
fn a_dump_from_a_file_that_is_not_there_is_error_1236_mysql() {
    a_dump_from_a_file_that_is_not_there_is_error_1236(Engine::MySql);
}

#[test]
fn a_dump_from_a_file_that_is_not_there_is_error_1236_mariadb() {
    a_dump_from_a_file_that_is_not_there_is_error_1236(Engine::MariaDb);
}

#[test]
fn clone_mode_is_refused_by_version_and_by_privilege_and_left_in_order() {
    let mariadb = TestServer::start(Engine::MariaDb);
    assert!(matches!(CloneConn::enter(mariadb.root()).unwrap_err(), Error::Unsupported { .. }));
    let server = TestServer::start(Engine::MySql);
    // A server may have the plugin from its configuration.
    let _ = server.root().execute("INSTALL PLUGIN clone SONAME 'mysql_clone.so'");
    server.run(&["CREATE USER plain@'%' IDENTIFIED BY 'a-Password-1'"]);
    let conn = Conn::connect(&tcp(&server, "plain", "a-Password-1", TlsMode::Preferred)).unwrap();
    assert_eq!(CloneConn::enter(conn).unwrap_err().code(), Some(1227));
    let mut conn = CloneConn::enter(server.root()).unwrap().exit().unwrap();
    assert_eq!(conn.query_text("SELECT 1").unwrap().as_deref(), Some("1"));
}
