"""Holds the daemon against its own OpenAPI document: a public validator judges the
document, and a property-based tester makes requests of it, right ones and wrong ones.

    openapi.py DAEMON CUSTOMER BLOB NAME…

Asks as each NAME in turn, by the files NAME.pem and NAME.key in the working directory beside
ca.pem. Ends with 0 if the document is valid and every answer is one that it has.
"""

import subprocess
import sys

import requests
from openapi_spec_validator import OpenAPIV31SpecValidator

EXAMPLES = 10
SEED = 20261123

# What a certificate on the connection settles is not a matter of headers, which `ignored_auth`
# would leave out. A header that is not understood is refused, and others are passed over, as
# HTTP has it.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
]


def main():
    daemon, customer, blob, *names = sys.argv[1:]
    session = requests.Session()
    session.trust_env = False
    session.verify, session.cert = "ca.pem", (f"{names[0]}.pem", f"{names[0]}.key")
    document = session.get(f"{daemon}/v1/openapi.json", timeout=30).json()
    errors = [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]
    assert not errors, errors
    assert document["openapi"].startswith("3.1.") and len(document["paths"]) > 20
    for name in names:
        with open("schemathesis.toml", "w", encoding="utf-8") as config:
            # Ids that there are: both at first, and then one, so that others are tried.
            config.write(f'[parameters]\n"path.customer" = "{customer}"\n')
            if name == names[0]:
                config.write(f'"path.blob" = "{blob}"\n')
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "--config-file=schemathesis.toml",
            "run",
            f"{daemon}/v1/openapi.json",
            f"--url={daemon}",
            "--tls-verify=ca.pem",
            f"--request-cert={name}.pem",
            f"--request-cert-key={name}.key",
            f"--checks={','.join(CHECKS)}",
            f"--max-examples={EXAMPLES}",
            f"--seed={SEED}",
            "--phases=examples,coverage,fuzzing",
            "--continue-on-failure",
            "--no-color",
        ]
        ended = subprocess.run(command, check=False)
        assert ended.returncode == 0, f"{name}: see above"


main()
