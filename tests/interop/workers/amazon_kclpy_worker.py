"""A worker of amazon_kclpy: its daemon, a Java program, with a process of Python for each shard.

Options: stream, application, worker_id, region, kinesis, ca_file, dynamodb, classpath, checkpoint_every, record_micros. The
credentials come from the variables of AWS. The standard output must be a file, to which the processes of the shards append too.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.interop.workers.protocol import AppendingLog, on_stop, options

DAEMON = "software.amazon.kinesis.multilang.MultiLangDaemon"
PASSWORD = "password"


def main() -> int:
    """Run the daemon until it is stopped."""
    given = options()
    output = Path("/proc/self/fd/1").readlink()
    log = AppendingLog(str(output))
    place = output.with_suffix(".files")
    place.mkdir()
    trusted = place / "trusted.p12"
    certificate = ["-file", given["ca_file"], "-keystore", str(trusted), "-storetype", "PKCS12", "-storepass", PASSWORD]
    subprocess.run(
        ["keytool", "-importcert", "-noprompt", "-alias", "ca", *certificate], check=True, capture_output=True
    )
    processor = place / "processor"
    arguments = f"{output} {given.get('checkpoint_every', '7')} {given.get('record_micros', '0')}"
    module = "tests.interop.workers.amazon_kclpy_processor"
    processor.write_text(f"#!/bin/sh\nexec {sys.executable} -m {module} {arguments}\n", encoding="utf-8")
    processor.chmod(0o755)
    properties = place / "application.properties"
    lines = [f"{name} = {value}\n" for name, value in _properties(given, processor).items()]
    properties.write_text("".join(lines), encoding="utf-8")
    tied = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    trust = [f"-Djavax.net.ssl.trustStore={trusted}", f"-Djavax.net.ssl.trustStorePassword={PASSWORD}"]
    flags = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m", *trust]
    daemon = subprocess.Popen(
        [*tied, "java", *flags, "-cp", given["classpath"], DAEMON, "--properties-file", str(properties)],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
    )

    def stop() -> None:
        log.event("stopping")
        daemon.send_signal(signal.SIGTERM)

    on_stop(stop)
    log.event("started")
    code = daemon.wait()
    log.event("stopped")
    return 0 if code == 128 + signal.SIGTERM else code


def _properties(given: dict[str, str], processor: Path) -> dict[str, object]:
    return {
        "executableName": processor,
        "streamName": given["stream"],
        "applicationName": given["application"],
        "workerId": given["worker_id"],
        "AwsCredentialsProvider": "DefaultCredentialsProvider",
        "processingLanguage": f"python/{sys.version_info.major}.{sys.version_info.minor}",
        "initialPositionInStream": "TRIM_HORIZON",
        "regionName": given["region"],
        "kinesisEndpoint": given["kinesis"],
        "dynamoDBEndpoint": given["dynamodb"],
        "failoverTimeMillis": 3000,
        "shardSyncIntervalMillis": 1,
        "parentShardPollIntervalMillis": 200,
        "maxRecords": 10,
        "idleTimeBetweenReadsInMillis": 250,
        "retrievalMode": "POLLING",
        "metricsLevel": "NONE",
        "shutdownGraceMillis": 20_000,
        "clientVersionConfig": "CLIENT_VERSION_CONFIG_3X",
        # As in java/3.4: only limits on throughput make leases move to a new worker.
        "leaseAssignmentIntervalMillis": 4000,
        "workerMetricsReporterFreqInMillis": 4000,
        "maxThroughputPerHostKBps": 50,
        "varianceBalancingFrequency": 1,
    }


if __name__ == "__main__":
    sys.exit(main())
