"""Bodies sent to a docker engine 20.10.24 and what it answered, as far as a conversion decides it."""

from __future__ import annotations

from typing import Any

RICH_SENT: dict[str, Any] = {
    "Name": "rich",
    "Labels": {"a": "b"},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "busybox:latest", "Labels": {}, "Command": ["sh"], "Args": [], "Hostname": "h", "Env": ["A=1"],
            "Dir": "/", "User": "u", "Groups": ["g"],
            "Privileges": {"CredentialSpec": None, "SELinuxContext": None},
            "StopSignal": "SIGTERM", "TTY": True, "OpenStdin": True, "ReadOnly": True,
            "Mounts": [
                {"Type": "bind", "Source": "/a", "Target": "/b",
                 "BindOptions": {"Propagation": "", "NonRecursive": True}},
                {"Type": "volume", "Source": "v", "Target": "/c", "ReadOnly": True, "Consistency": "cached",
                 "VolumeOptions": {"NoCopy": True, "Labels": {"x": "y"},
                                   "DriverConfig": {"Name": "local", "Options": {"o": "p"}}}},
                {"Type": "volume", "Target": "/c2", "VolumeOptions": {}},
                {"Type": "tmpfs", "Target": "/d", "TmpfsOptions": {"SizeBytes": 1048576, "Mode": 511}},
                {"Target": "/e", "Source": "/e", "BindOptions": {}},
            ],
            "StopGracePeriod": 0,
            "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1000000000, "Timeout": 0, "Retries": 3},
            "Hosts": ["1.2.3.4 foo"],
            "DNSConfig": {"Nameservers": ["8.8.8.8"], "Search": [], "Options": None},
            "Isolation": "", "Sysctls": {"a": "b"}, "CapabilityAdd": ["CAP_A"], "CapabilityDrop": ["CAP_B"],
            "Ulimits": [{"Name": "nofile", "Hard": 10, "Soft": 5}], "Init": True,
        },
        "Resources": {
            "Limits": {"NanoCPUs": 100000000, "MemoryBytes": 10000000, "Pids": 5},
            "Reservations": {
                "NanoCPUs": 100000000, "MemoryBytes": 10000000,
                "GenericResources": [{"NamedResourceSpec": {"Kind": "gpu", "Value": "x"}},
                                     {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}}],
            },
        },
        "RestartPolicy": {"Condition": "on-failure", "Delay": 1, "MaxAttempts": 0, "Window": 0},
        "Placement": {
            "Constraints": ["node.role==manager"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.x"}}, {}],
            "MaxReplicas": 2,
            "Platforms": [{"Architecture": "amd64", "OS": "linux"}, {}],
        },
        "LogDriver": {"Name": "json-file", "Options": {"x": "y"}},
        "ForceUpdate": 2,
        "Networks": [],
    },
    "Mode": {"Replicated": {"Replicas": 0}},
    "UpdateConfig": {"Parallelism": 1, "Delay": 5, "FailureAction": "rollback", "Monitor": 0,
                     "MaxFailureRatio": 0.1, "Order": "start-first"},
    "RollbackConfig": {},
    "EndpointSpec": {
        "Mode": "vip",
        "Ports": [
            {"Name": "", "Protocol": "", "TargetPort": 80, "PublishedPort": 0, "PublishMode": ""},
            {"Protocol": "udp", "TargetPort": 81, "PublishedPort": 81, "PublishMode": "host"},
        ],
    },
}  # fmt: skip

# NoNewPrivileges is newer than the engine that was recorded.
RICH_SHOWN: dict[str, Any] = {
    "Name": "rich",
    "Labels": {"a": "b"},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "busybox:latest", "Command": ["sh"], "Hostname": "h", "Env": ["A=1"], "Dir": "/", "User": "u",
            "Groups": ["g"],
            "Privileges": {"CredentialSpec": None, "SELinuxContext": None, "NoNewPrivileges": False},
            "Init": True, "StopSignal": "SIGTERM", "TTY": True, "OpenStdin": True, "ReadOnly": True,
            "Mounts": [
                {"Type": "bind", "Source": "/a", "Target": "/b",
                 "BindOptions": {"Propagation": "rprivate", "NonRecursive": True}},
                {"Type": "volume", "Source": "v", "Target": "/c", "ReadOnly": True,
                 "VolumeOptions": {"NoCopy": True, "Labels": {"x": "y"},
                                   "DriverConfig": {"Name": "local", "Options": {"o": "p"}}}},
                {"Type": "volume", "Target": "/c2", "VolumeOptions": {}},
                {"Type": "tmpfs", "Target": "/d", "TmpfsOptions": {"SizeBytes": 1048576, "Mode": 511}},
                {"Type": "bind", "Source": "/e", "Target": "/e"},
            ],
            "StopGracePeriod": 0,
            "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1000000000, "Retries": 3},
            "Hosts": ["1.2.3.4 foo"], "DNSConfig": {"Nameservers": ["8.8.8.8"]}, "Isolation": "default",
            "Sysctls": {"a": "b"}, "CapabilityAdd": ["CAP_A"], "CapabilityDrop": ["CAP_B"],
            "Ulimits": [{"Name": "nofile", "Hard": 10, "Soft": 5}],
        },
        "Resources": {
            "Limits": {"NanoCPUs": 100000000, "MemoryBytes": 10000000, "Pids": 5},
            "Reservations": {
                "NanoCPUs": 100000000, "MemoryBytes": 10000000,
                "GenericResources": [{"NamedResourceSpec": {"Kind": "gpu", "Value": "x"}},
                                     {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}}],
            },
        },
        "RestartPolicy": {"Condition": "on-failure", "Delay": 1, "MaxAttempts": 0, "Window": 0},
        "Placement": {
            "Constraints": ["node.role==manager"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.x"}}],
            "MaxReplicas": 2,
            "Platforms": [{"Architecture": "amd64", "OS": "linux"}, {}],
        },
        "LogDriver": {"Name": "json-file", "Options": {"x": "y"}},
        "ForceUpdate": 2,
        "Runtime": "container",
    },
    "Mode": {"Replicated": {"Replicas": 0}},
    "UpdateConfig": {"Parallelism": 1, "Delay": 5, "FailureAction": "rollback", "MaxFailureRatio": 0.1,
                     "Order": "start-first"},
    "RollbackConfig": {"Parallelism": 0, "FailureAction": "pause", "MaxFailureRatio": 0, "Order": "stop-first"},
    "EndpointSpec": {
        "Mode": "vip",
        "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"},
                  {"Protocol": "udp", "TargetPort": 81, "PublishedPort": 81, "PublishMode": "host"}],
    },
}  # fmt: skip

FILE = {"Name": "n", "UID": "0", "GID": "0", "Mode": 292}

GLOBAL_SENT: dict[str, Any] = {
    "Name": "n1",
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "b",
            "Privileges": {"CredentialSpec": {"File": "f"}, "SELinuxContext": {"Disable": True, "User": "u"}},
            "Secrets": [{"SecretID": "sid", "SecretName": "s", "File": FILE}],
            "Configs": [{"ConfigID": "cid", "ConfigName": "c", "File": FILE},
                        {"ConfigID": "cid", "ConfigName": "c", "Runtime": {}}],
        },
        "Networks": [{"Target": "nid", "Aliases": ["al"], "DriverOpts": {"a": "b"}}],
        "Runtime": "container",
    },
    "EndpointSpec": {},
    "Mode": {"Global": {}},
}  # fmt: skip

GLOBAL_SHOWN: dict[str, Any] = {
    "Name": "n1",
    "Labels": {},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "b",
            "Privileges": {
                "CredentialSpec": {"Config": "", "File": "f", "Registry": ""},
                "SELinuxContext": {"Disable": True, "User": "u", "Role": "", "Type": "", "Level": ""},
                "NoNewPrivileges": False,
            },
            "Secrets": [{"File": FILE, "SecretID": "sid", "SecretName": "s"}],
            "Configs": [{"File": FILE, "ConfigID": "cid", "ConfigName": "c"},
                        {"Runtime": {}, "ConfigID": "cid", "ConfigName": "c"}],
            "Isolation": "default",
        },
        "Networks": [{"Target": "nid", "Aliases": ["al"], "DriverOpts": {"a": "b"}}],
        "ForceUpdate": 0,
        "Runtime": "container",
    },
    "Mode": {"Global": {}},
    "EndpointSpec": {"Mode": "vip"},
}  # fmt: skip

CLI_CREATE: dict[str, Any] = {
    "Name": "web",
    "Labels": {},
    "TaskTemplate": {
        "ContainerSpec": {"Image": "busybox:latest", "Args": ["sleep", "1d"], "Init": False, "DNSConfig": {}},
        "Resources": {"Limits": {}, "Reservations": {}},
        "Placement": {},
        "ForceUpdate": 0,
    },
    "Mode": {"Replicated": {}},
    "EndpointSpec": {"Mode": "vip"},
}

CLI_SHOWN: dict[str, Any] = {
    "Name": "web",
    "Labels": {},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "busybox:latest", "Args": ["sleep", "1d"], "Init": False, "DNSConfig": {}, "Isolation": "default",
        },
        "Resources": {"Limits": {}, "Reservations": {}},
        "Placement": {},
        "ForceUpdate": 0,
        "Runtime": "container",
    },
    "Mode": {"Replicated": {"Replicas": 1}},
    "EndpointSpec": {"Mode": "vip"},
}  # fmt: skip

MINIMAL_SENT: dict[str, Any] = {"Name": "min", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}}

MINIMAL_SHOWN: dict[str, Any] = {
    "Name": "min",
    "Labels": {},
    "TaskTemplate": {
        "ContainerSpec": {"Image": "busybox", "Isolation": "default"}, "ForceUpdate": 0, "Runtime": "container",
    },
    "Mode": {"Replicated": {"Replicas": 1}},
}  # fmt: skip
