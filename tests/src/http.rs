//! One HTTP call over a stream.

use std::io::{BufRead, BufReader, Read, Write, copy};

use anyhow::{Context, Result, bail};

/// What is asked.
#[derive(Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// The server's name.
    pub host: &'a str,
    /// Further headers.
    pub headers: &'a [(&'a str, &'a str)],
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Call<'_> {
    /// Makes the call over a stream of its own, with `length` bytes of `body`.
    ///
    /// # Errors
    /// Where the stream breaks, or the answer is none.
    pub fn over(&self, mut stream: impl Read + Write, body: impl Read, length: u64) -> Result<Answer> {
        let Self { method, path, host, headers } = self;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n"
        )?;
        for (name, value) in *headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        stream.write_all(b"\r\n")?;
        copy(&mut body.take(length), &mut stream)?;
        Answer::read(BufReader::new(stream)).with_context(|| format!("{method} {path}"))
    }
}

impl Answer {
    fn read(mut stream: impl BufRead) -> Result<Self> {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).context("no status line")?.trim().parse()?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Self { status, headers, body: Vec::new() };
        if answer.header("transfer-encoding").is_some() {
            bail!("a chunked answer was not expected here");
        }
        stream.read_to_end(&mut answer.body)?;
        Ok(answer)
    }

    /// A header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body, as text for people.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
