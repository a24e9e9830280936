//! Where connections to the donor come from. A name may lead to several servers (round robin, a proxy, an address that
//! moves): the first connection says which one is copied, and every later one is asked, so that no clone mixes two.

use std::time::Duration;

use holdfast_mysql::{Conn, ConnectOptions};

use crate::error::Error;

/// Longest wait for an answer in SQL.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Opens connections to one server.
#[derive(Debug, Clone)]
pub(super) struct Door {
    options: ConnectOptions,
    /// What the first connection found there. A MariaDB has none, and is never cloned.
    server_uuid: Option<String>,
}

impl Door {
    /// The first connection, and the way to more of them.
    ///
    /// # Errors
    /// Those of connecting and of asking.
    pub(super) fn first(options: &ConnectOptions) -> Result<(Self, Conn), Error> {
        let mut conn = connect(options)?;
        let server_uuid = if conn.server().is_mariadb() { None } else { server_uuid(&mut conn)? };
        Ok((Self { options: options.clone(), server_uuid }, conn))
    }

    /// One more connection to the same server; an answer is waited for at most a minute.
    ///
    /// # Errors
    /// [`Error::Unfit`] if another server answers; those of connecting and of asking.
    pub(super) fn again(&self) -> Result<Conn, Error> {
        let mut conn = connect(&self.options)?;
        let found = server_uuid(&mut conn)?;
        if found == self.server_uuid {
            return Ok(conn);
        }
        let word = |uuid: &Option<String>| uuid.clone().unwrap_or_else(|| "none".to_owned());
        Err(Error::Unfit {
            server: self.options.endpoint.to_string(),
            problem: format!(
                "several servers answer there: the copy began with server_uuid {}, and a later connection reached {}",
                word(&self.server_uuid),
                word(&found)
            ),
            remedy:
                "Name an address that leads to one server only, and no balancer or name that several share"
                    .to_owned(),
        })
    }

    /// Where it leads to.
    pub(super) fn options(&self) -> &ConnectOptions {
        &self.options
    }
}

fn connect(options: &ConnectOptions) -> Result<Conn, Error> {
    let mut conn = Conn::connect(options)?;
    conn.set_read_timeout(ANSWER_MAX);
    Ok(conn)
}

fn server_uuid(conn: &mut Conn) -> Result<Option<String>, Error> {
    Ok(conn.query_text("SELECT @@server_uuid")?)
}
