"""The registries of npm, Python and Rust and a git server, for one package `answer`, on port 443."""

import base64, hashlib, http.server, io, json, os, ssl, subprocess, tarfile, zipfile


def tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), 0o644
            archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


def wheel(files):
    out = io.BytesIO()
    record = "answer-1.0.dist-info/RECORD"
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(record, "".join(f"{name},,\n" for name in [*files, record]))
    return out.getvalue()


npm = tar({
    "package/package.json": '{"name":"answer","version":"1.0.0","main":"index.js"}',
    "package/index.js": "module.exports = 42\n",
})
pip = wheel({
    "answer.py": "answer = 42\n",
    "answer-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: answer\nVersion: 1.0\n",
    "answer-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
})
crate = tar({
    "answer-1.0.0/Cargo.toml": '[package]\nname = "answer"\nversion = "1.0.0"\nedition = "2021"\n',
    "answer-1.0.0/src/lib.rs": "pub fn answer() -> u32 { 42 }\n",
})
sha512 = base64.b64encode(hashlib.sha512(npm).digest()).decode()
entry = {"name": "answer", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False,
         "cksum": hashlib.sha256(crate).hexdigest()}
pages = {
    "registry.npmjs.org/answer": json.dumps({
        "name": "answer", "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": {"name": "answer", "version": "1.0.0", "dist": {
            "tarball": "https://registry.npmjs.org/answer/-/answer-1.0.0.tgz",
            "integrity": "sha512-" + sha512}}}}).encode(),
    "registry.npmjs.org/answer/-/answer-1.0.0.tgz": npm,
    "pypi.org/simple/answer/": b'<a href="https://files.pythonhosted.org/answer-1.0-py3-none-any.whl#sha256='
        + hashlib.sha256(pip).hexdigest().encode() + b'">answer</a>',
    "files.pythonhosted.org/answer-1.0-py3-none-any.whl": pip,
    "index.crates.io/config.json": b'{"dl":"https://static.crates.io/crates","api":"https://crates.io"}',
    "index.crates.io/an/sw/answer": json.dumps(entry).encode() + b"\n",
    "static.crates.io/crates/answer/1.0.0/download": crate,
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        host, path = self.headers["Host"], self.path.split("?")[0]
        body = pages.get(host + path)
        if host == "github.com" and os.path.isfile("served" + path):
            body = open("served" + path, "rb").read()
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Type", "text/html" if host == "pypi.org" else "application/octet-stream")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *words):
        pass


hosts = sorted({page.split("/")[0] for page in pages} | {"github.com"})
subprocess.run(
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout key.pem"
    " -out cert.pem -subj /CN=test -addext subjectAltName=" + ",".join("DNS:" + host for host in hosts),
    shell=True, check=True, stderr=subprocess.DEVNULL)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")


class Server(http.server.ThreadingHTTPServer):
    """A client that does not shake hands holds up nobody else."""

    def finish_request(self, request, client):
        with context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client)

    def handle_error(self, request, client):
        pass


server = Server(("0.0.0.0", 443), Handler)
print("listens", flush=True)
server.serve_forever()
