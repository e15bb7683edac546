#!/usr/bin/env python3
"""Opens one blob of a Strongroom store, and needs no Strongroom for it.

Written from Strongroom's manual (chapters `format` and `keys`) and the C2SP
chunked-encryption specification, with Python's standard library alone. It is a
second witness that the manual has every byte, and a last resort for whoever has
the keys. It is slow, does nothing in constant time and writes no audit record:
use it where nobody else looks on.

    decode.py STORE CUSTOMER BLOB          --local-kms DIR | --keys FILE
    decode.py STORE CUSTOMER --name NAME   --local-kms DIR | --keys FILE

STORE is the root directory of a store, CUSTOMER a customer id or `label:` and a
label. The plaintext goes to standard output, once all of it is authentic; the
metadata goes as JSON to standard error, or to --metadata FILE. FILE of --keys is
{"epoch": {"1": hex}, "data_keys": {"<data key id>": hex}, "blobs": {"<blob id>": hex}},
the last for blobs under strict accountability, if there are any.

Exit codes: 0, 1 what is stored does not open, 2 wrong usage, 3 not found.
"""

import argparse
import datetime
import hashlib
import hmac
import json
import os
import re
import struct
import sys


class Refused(Exception):
    """What is stored is not what was sealed, or the keys are not the right ones."""


class Missing(Exception):
    """There is no such thing in this store."""


class NoBlob(Missing):
    """There is no object of this blob."""


def require(condition, what):
    if not condition:
        raise Refused(what)


# ---------------------------------------------------------------- primitives

def expand(key, info, length):
    """HKDF-Expand over HMAC-SHA-512, RFC 5869 s2.3."""
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(key, block + info + bytes([counter]), hashlib.sha512).digest()
        out += block
        counter += 1
    return out[:length]


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def times_x(byte):
    """Multiplication by x in AES's field, FIPS 197 s4.2."""
    return (byte << 1 ^ (0x11B if byte & 0x80 else 0)) & 0xFF


def make_sbox():
    sbox, p, q = [0] * 256, 1, 1
    while True:
        p ^= times_x(p)                        # p runs through all powers of 3,
        q ^= q << 1                            # q through their inverses.
        q ^= q << 2
        q ^= q << 4
        q &= 0xFF
        q ^= 0x09 if q & 0x80 else 0
        spread = q
        for turn in (1, 2, 3, 4):
            spread ^= (q << turn | q >> (8 - turn)) & 0xFF
        sbox[p] = spread ^ 0x63
        if p == 1:
            sbox[0] = 0x63
            return sbox


SBOX = make_sbox()
DOUBLE = [times_x(byte) for byte in range(256)]
# Where ShiftRows takes byte i of the new state from.
SHIFTED = [(i + 4 * (i % 4)) % 16 for i in range(16)]


class Aes256:
    """The block cipher, encrypting only: GCM needs no more. FIPS 197."""

    def __init__(self, key):
        words = [list(key[i:i + 4]) for i in range(0, 32, 4)]
        rcon = 1
        for i in range(8, 60):
            word = words[-1]
            if i % 8 == 0:
                word = [SBOX[b] for b in word[1:] + word[:1]]
                word[0] ^= rcon
                rcon = times_x(rcon)
            elif i % 8 == 4:
                word = [SBOX[b] for b in word]
            words.append([a ^ b for a, b in zip(words[-8], word)])
        self.rounds = [sum(words[i:i + 4], []) for i in range(0, 60, 4)]

    def encrypt(self, block):
        state = xor(block, self.rounds[0])
        for number, key in enumerate(self.rounds[1:], 1):
            state = [SBOX[state[i]] for i in SHIFTED]
            if number < 14:
                mixed = []
                for i in range(0, 16, 4):
                    a, b, c, d = state[i:i + 4]
                    every = a ^ b ^ c ^ d
                    mixed += [a ^ every ^ DOUBLE[a ^ b], b ^ every ^ DOUBLE[b ^ c],
                              c ^ every ^ DOUBLE[c ^ d], d ^ every ^ DOUBLE[d ^ a]]
                state = mixed
            state = xor(state, key)
        return bytes(state)


def aes_256_gcm_open(key, nonce, aad, sealed):
    """NIST SP 800-38D s7.2, with nonces of 12 and tags of 16 bytes."""
    cipher = Aes256(key)
    body, tag = sealed[:-16], sealed[-16:]
    h = int.from_bytes(cipher.encrypt(bytes(16)), "big")

    def multiply(x):
        product, v = 0, h
        for bit in range(127, -1, -1):
            if x >> bit & 1:
                product ^= v
            v = v >> 1 ^ (0xE1 << 120 if v & 1 else 0)
        return product

    y = 0
    for part in (aad, body):
        for i in range(0, len(part), 16):
            y = multiply(y ^ int.from_bytes(part[i:i + 16].ljust(16, b"\0"), "big"))
    y = multiply(y ^ (len(aad) * 8 << 64 | len(body) * 8))
    expected = xor(y.to_bytes(16, "big"), cipher.encrypt(nonce + struct.pack(">I", 1)))
    require(hmac.compare_digest(expected, tag), "authentication failed")
    return b"".join(
        xor(body[i:i + 16], cipher.encrypt(nonce + struct.pack(">I", 2 + i // 16)))
        for i in range(0, len(body), 16))


def chacha20_block(key, counter, nonce):
    """RFC 8439 s2.3."""
    start = struct.unpack("<16I", b"expand 32-byte k" + key + struct.pack("<I", counter) + nonce)
    state = list(start)

    def quarter(a, b, c, d):
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & 0xFFFFFFFF
            state[z] ^= state[x]
            state[z] = (state[z] << turn | state[z] >> (32 - turn)) & 0xFFFFFFFF

    for _ in range(10):
        quarter(0, 4, 8, 12)
        quarter(1, 5, 9, 13)
        quarter(2, 6, 10, 14)
        quarter(3, 7, 11, 15)
        quarter(0, 5, 10, 15)
        quarter(1, 6, 11, 12)
        quarter(2, 7, 8, 13)
        quarter(3, 4, 9, 14)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, start)))


def poly1305(key, message):
    """RFC 8439 s2.5."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    accumulator = 0
    for i in range(0, len(message), 16):
        block = message[i:i + 16] + b"\1"
        accumulator = (accumulator + int.from_bytes(block, "little")) * r % (2 ** 130 - 5)
    return ((accumulator + int.from_bytes(key[16:], "little")) % 2 ** 128).to_bytes(16, "little")


def chacha20_poly1305_open(key, nonce, aad, sealed):
    """RFC 8439 s2.8."""
    body, tag = sealed[:-16], sealed[-16:]

    def padded(part):
        return part + bytes(-len(part) % 16)

    message = padded(aad) + padded(body) + struct.pack("<QQ", len(aad), len(body))
    expected = poly1305(chacha20_block(key, 0, nonce)[:32], message)
    require(hmac.compare_digest(expected, tag), "authentication failed")
    return b"".join(
        xor(body[i:i + 64], chacha20_block(key, 1 + i // 64, nonce)) for i in range(0, len(body), 64))


def open_sealed(suite, key, aad, sealed, nonce=bytes(12)):
    require(len(sealed) >= 16, "authentication failed")
    return SUITES[suite][1](key, nonce, aad, sealed)


# ---------------------------------------------------------------- encodings

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
SUITES = {
    1: ("AEAD_AES_256_GCM", aes_256_gcm_open),
    2: ("AEAD_CHACHA20_POLY1305", chacha20_poly1305_open),
}
AES_256_GCM = 1
LAST_TIME = 253402207200000000
LAST_DAY = 2932896


def base32(data):
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    return "".join(ALPHABET[int(bits[i:i + 5], 2)] for i in range(0, len(bits), 5))


def is_id(text):
    if len(text) != 26 or any(c not in ALPHABET for c in text):
        return False
    return "".join(f"{ALPHABET.index(c):05b}" for c in text).endswith("00")


def id_bytes(text):
    if not is_id(text):
        raise Missing("not an id: 26 characters of " + ALPHABET)
    bits = "".join(f"{ALPHABET.index(c):05b}" for c in text)[:128]
    return int(bits, 2).to_bytes(16, "big")


class Reader:
    """Reads an encoding from the front, strictly."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, length):
        require(length <= len(self.data) - self.at, "truncated")
        self.at += length
        return self.data[self.at - length:self.at]

    def number(self, size):
        return int.from_bytes(self.raw(size), "big")

    def bytes(self, limit=2 ** 32):
        length = self.number(4)
        require(length <= limit, "a length is out of range")
        return self.raw(length)

    def text(self, limit=2 ** 32):
        try:
            return self.bytes(limit).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("not UTF-8") from None

    def time(self):
        micros = self.number(8)
        require(micros <= LAST_TIME, "a time is out of range")
        return micros

    def flag(self):
        flag = self.number(1)
        require(flag <= 1, "a flag is neither 0 nor 1")
        return flag == 1

    def kms_key(self):
        text = self.text(512)
        require(re.fullmatch(r"[a-z0-9][a-z0-9._-]*:[A-Za-z0-9:/_.-]+", text), "not the name of a KMS key")
        return text

    def option(self, item):
        return item(self) if self.flag() else None

    def list(self, item):
        return [item(self) for _ in range(self.number(4))]

    def version(self, magic, newest=1):
        require(self.raw(8) == magic, "not of this format")
        version, complement = self.raw(2)
        require(version ^ complement == 0xFF and version != 0, "damaged version")
        require(version <= newest, "a later format than this program knows")
        return version

    def end(self):
        require(self.at == len(self.data), "bytes follow the end")


def read_id(reader):
    return reader.raw(16)


def ascending(keys):
    require(all(a < b for a, b in zip(keys, keys[1:])), "a list is not sorted, or has duplicates")


def date_of(day):
    require(day <= LAST_DAY, "a day is out of range")
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()


# ---------------------------------------------------------------- KMS

class PlainKeys:
    """Data keys that someone with the KMS has unwrapped."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            keys = json.load(file)
        self.epochs, self.customers, self.blobs = keys["epoch"], keys["data_keys"], keys.get("blobs", {})

    def data_key(self, _kms_key, _wrapped, context):
        if context["strongroom:use"] == "epoch":
            key = self.epochs.get(context["strongroom:epoch"])
        elif context["strongroom:use"] == "blob":
            key = self.blobs.get(context["strongroom:blob"])
        else:
            key = self.customers.get(context["strongroom:data-key"])
        if key is None:
            raise Missing("the file of keys lacks one that is needed: " + json.dumps(context))
        return bytes.fromhex(key)


class LocalKms:
    """The directory of a local KMS."""

    def __init__(self, directory):
        self.directory = directory

    def key(self, name):
        """The 32 bytes of a key, from its file."""
        path = os.path.join(self.directory, base32(name) + ".key")
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            raise Missing("the key directory has no " + os.path.basename(path)) from None
        reader = Reader(data)
        reader.version(b"SRlkmsky")
        require(reader.raw(16) == name, "a key file has another key's name")
        reader.time()
        # A disabled key, too, is opened here: this is a restore, not a service.
        state, due = reader.number(1), reader.time()
        require(state <= 2 and (due == 0 or state == 2), "a key file has no known state")
        key = reader.raw(32)
        require(reader.raw(32) == hashlib.sha256(data[:75]).digest(), "a key file is damaged")
        reader.end()
        return key

    def data_key(self, kms_key, wrapped, context):
        provider, _, name = kms_key.partition(":")
        if provider != "local":
            raise Missing("the data key is wrapped by another KMS: use --keys")
        reader = Reader(wrapped)
        reader.version(b"SRlkmsdk")
        key, salt, sealed = reader.raw(16), reader.raw(24), reader.raw(48)
        reader.end()
        require(base32(key) == name, "the wrapped data key is another KMS key's")
        pairs = struct.pack(">I", len(context))
        for text in (text for pair in sorted(context.items()) for text in pair):
            pairs += struct.pack(">I", len(text)) + text.encode()
        aad = wrapped[:50] + struct.pack(">I", len(pairs)) + pairs
        wrapping = expand(self.key(key), b"strongroom/v1/local-kms\0" + salt, 32)
        return open_sealed(AES_256_GCM, wrapping, aad, sealed)


# ---------------------------------------------------------------- the store

class Store:
    """A store below one root directory."""

    def __init__(self, root, kms):
        self.root, self.kms = root, kms
        marker = self.read("keys", "store")
        found = re.fullmatch(rb'\{"format":"strongroom-store-v1","store":"([0-9a-z]{26})","log_key":"[0-9a-f]{64}"\}\n', marker)
        require(found, "the store's marker is damaged, or of a later format")
        self.id_text = found[1].decode()
        self.id = id_bytes(self.id_text)
        self.epochs = {}

    def read(self, *path):
        try:
            with open(os.path.join(self.root, *path), "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            raise Missing("there is no " + "/".join(path)) from None

    def list(self, pattern, *path):
        """The names below a path that are spelt as `pattern` says, sorted."""
        try:
            names = os.listdir(os.path.join(self.root, *path))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if re.fullmatch(pattern, name))

    def epoch(self, number):
        """The epoch's data key and the directory key."""
        if number not in self.epochs:
            data = self.read("keys", "epoch", f"{number:08x}")
            reader = Reader(data)
            reader.version(b"SRM-EPCH")
            require(reader.raw(16) == self.id and reader.number(4) == number, "another epoch's record")
            reader.time()
            kms_key, wrapped, salt = reader.kms_key(), reader.bytes(6144), reader.raw(24)
            aad, sealed = data[:reader.at], reader.raw(48)
            reader.end()
            context = {
                "strongroom:use": "epoch",
                "strongroom:store": self.id_text,
                "strongroom:epoch": str(number),
            }
            data_key = self.kms.data_key(kms_key, wrapped, context)
            wrapping = expand(data_key, b"strongroom/v1/directory\0" + self.id + salt, 32)
            self.epochs[number] = data_key, open_sealed(AES_256_GCM, wrapping, aad, sealed)
        return self.epochs[number]

    def customer_of(self, label):
        """The id of the customer with this label."""
        numbers = self.list("[0-9a-f]{8}", "keys", "epoch")
        if not numbers:
            raise Missing("the store has no epoch record")
        _, directory_key = self.epoch(int(numbers[-1], 16))
        tag = hmac.new(directory_key, b"strongroom/v1/label\0" + label.encode(), hashlib.sha256).digest()
        text = self.read("keys", "label", base32(tag)).decode("ascii", "replace")
        require(text.endswith("\n") and is_id(text[:-1]), "a label does not hold a customer id")
        customer = text[:-1]
        require(self.ring(customer).label == label, "the label leads to another customer's ring")
        return customer

    def ring(self, customer):
        """The newest ring of a customer. Whether the log knows a newer one is not asked."""
        versions = self.list("[0-9a-f]{16}", "keys", "ring", customer)
        if not versions:
            raise Missing("there is no such customer")
        data = self.read("keys", "ring", customer, versions[-1])
        return Ring(self, customer, int(versions[-1], 16), data)


class Ring:
    """One version of a customer's ring, opened."""

    def __init__(self, store, customer, version, data):
        self.store, self.customer_text, self.customer = store, customer, id_bytes(customer)
        reader = Reader(data)
        form = reader.version(b"SRM-RING", newest=2)
        require(reader.raw(16) == store.id, "another store's ring")
        require(reader.raw(16) == self.customer, "another customer's ring")
        require(reader.number(8) == version and version > 0, "another version of the ring")
        epoch, salt = reader.number(4), reader.raw(24)
        self.form, self.epoch, base = form, epoch, None
        if form == 2:
            base = self.base(version, reader.number(8), reader.raw(32))
        data_key, _ = store.epoch(epoch)
        info = b"strongroom/v1/ring\0" + store.id + self.customer + struct.pack(">Q", version) + salt
        prefix = data[:reader.at]
        body = Reader(open_sealed(AES_256_GCM, expand(data_key, info, 32), prefix, data[reader.at:]))

        self.label = body.text(64)
        require(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.label), "not a label")
        body.kms_key()
        require(body.number(2) in SUITES, "an unknown suite")
        body.flag()
        body.flag()
        require(body.number(1) in (1, 2), "an unknown tenancy")
        policies = body.list(self.read_policy)
        closed = body.option(read_id)
        claims = []
        if base is None:
            data_keys, entries = body.list(self.read_data_key), body.list(self.read_entry)
            dropped, holds = body.list(self.read_dropped), body.list(self.read_hold)
            self.withdrawn, orders = body.list(read_id), body.list(read_id)
            claims = self.read_parts(body)
        else:
            # A ring with claims is stored whole.
            holds = body.list(self.read_hold)
            self.withdrawn, orders = body.list(read_id), body.list(read_id)
            data_keys = self.changed(base.lists[0], body.list(read_id), body.list(self.read_data_key))
            entries = self.changed(base.lists[1], body.list(read_id), body.list(self.read_entry))
            dropped = self.changed(base.lists[2], [], body.list(self.read_dropped))
        body.end()
        self.lists = data_keys, entries, dropped

        for items in (data_keys, entries, dropped, holds):
            ascending([item["id"] if isinstance(item, dict) else item[0] for item in items])
        ascending(self.withdrawn)
        ascending(orders)
        ascending([claim["order"] for claim in claims])
        self.data_keys = {key[0]: key[1:] for key in data_keys}
        self.entries = {entry["id"]: entry for entry in entries}
        self.dropped = {gone["id"]: gone["kind"] for gone in dropped}
        require(not self.dropped.keys() & set(self.entries), "a dropped key has returned")
        require(all(gone["version"] <= version for gone in dropped), "a key was dropped in a later version")
        require(all(gone["born"] <= gone["last"] <= epoch for gone in dropped), "a key died before it was made")
        require(all(entry["born"] <= epoch for entry in entries), "a key of a later epoch")
        require(all(entry["data_key"] in self.data_keys for entry in entries), "a data key is missing")
        numbers = [policy["number"] for policy in policies]
        require(numbers and numbers == list(range(1, len(numbers) + 1)), "the policies are not numbered from 1")
        named = [thing["order"] for thing in policies + entries + dropped + claims] + [closed]
        require(all(order in orders for order in named if order is not None), "an order was not used")
        for hold in holds:
            self.check_hold(hold)
        live = [hold for hold in holds if hold["state"] != 3]
        for entry in entries:
            held = any(self.keeps_active(hold, entry) for hold in live)
            claimed = any(entry["id"] in claim["keys"] for claim in claims)
            pends = (entry["kind"][0] != 3 or closed is not None) and (not held or claimed)
            require(entry["state"] == 1 or pends, "a key that is to stay is pending")

    def base(self, version, base, digest):
        """The whole version that this one says the changes since."""
        require(base < version, "a ring is over a later version")
        data = self.store.read("keys", "ring", self.customer_text, "%016x" % base)
        require(hashlib.sha256(data).digest() == digest, "a ring is over another version than it names")
        ring = Ring(self.store, self.customer_text, base, data)
        require(ring.form == 1 and ring.epoch == self.epoch, "a ring is over one that is not whole")
        return ring

    @staticmethod
    def changed(before, out, put):
        """A list with some left out and some put in, by id."""
        id_of = lambda item: item["id"] if isinstance(item, dict) else item[0]
        ascending(out)
        ascending([id_of(item) for item in put])
        items = {id_of(item): item for item in before}
        require(all(item in items for item in out), "what is left out was not there")
        require(all(items.get(id_of(item)) != item for item in put), "what is put in was there")
        items = {name: item for name, item in items.items() if name not in out}
        items.update({id_of(item): item for item in put})
        return [items[name] for name in sorted(items)]

    def check_hold(self, hold):
        """What a hold on one blob needs: its key, and the blob's while it is opening."""
        if hold["scope"] != 3:
            require(hold["state"] != 1, "a hold without a key is opening")
            return
        own = self.entries.get(hold["key"])
        if hold["state"] == 3:
            kind = own["kind"] if own else self.dropped.get(hold["key"])
            require(kind and (own is None or kind[0] == 2), "the key of a hold is missing")
            return
        require(own and own["kind"][0] == 2 and own["state"] == 1, "the key of a hold is missing")
        require(hold["state"] == 2 or hold["from"] in self.entries, "the key of a held blob is missing")

    @staticmethod
    def keeps_active(hold, entry):
        if hold["scope"] == 3:
            return entry["id"] == hold["key"]
        return hold["scope"] == 1 or entry["kind"] == struct.pack(">BI", 1, hold["day"])

    @staticmethod
    def read_parts(body):
        """What stands behind the lists that every ring has: the claims, and what may be passed over."""
        claims, last = [], 0
        while body.at < len(body.data):
            tag, part = body.number(1), Reader(body.bytes(1 << 24))
            require(last < tag, "the parts of a ring are not in order")
            require(tag == 1 or tag >= 128, "a part of a ring that has to be known")
            if tag == 1:
                claims = part.list(Ring.read_claim)
                part.end()
                require(claims, "an empty part of a ring")
            last = tag
        return claims

    @staticmethod
    def read_claim(reader):
        claim = {"order": read_id(reader), "since": reader.number(8), "until": reader.time()}
        claim["blob"], claim["keys"] = reader.option(read_id), reader.list(read_id)
        ascending(claim["keys"])
        return claim

    @staticmethod
    def read_data_key(reader):
        return reader.raw(16), reader.kms_key(), reader.bytes(6144)

    @staticmethod
    def read_policy(reader):
        policy = {"number": reader.number(4)}
        reader.time()
        require(re.fullmatch(r"P(?=.)([1-9][0-9]*M)?([1-9][0-9]*D)?", reader.text(32)), "not a period")
        require(1 <= reader.number(2) <= 365, "a window is out of range")
        policy["order"] = reader.option(read_id)
        return policy

    @staticmethod
    def read_hold(reader):
        hold = {"id": reader.raw(16), "scope": reader.number(1)}
        require(hold["scope"] in (1, 2, 3), "an unknown scope of a hold")
        if hold["scope"] == 2:
            hold["day"] = reader.number(4)
            require(hold["day"] <= LAST_DAY, "a day is out of range")
        if hold["scope"] == 3:
            hold["blob"], hold["from"], hold["key"] = reader.raw(16), reader.raw(16), reader.raw(16)
        reader.time()
        hold["state"] = reader.number(1)
        require(hold["state"] in (1, 2, 3), "an unknown state of a hold")
        if hold["state"] == 3:
            reader.raw(16)
            reader.time()
        return hold

    @staticmethod
    def read_kind(reader):
        kind = reader.raw(5)
        number, day = kind[0], int.from_bytes(kind[1:], "big")
        require(number in (1, 2, 3) and day <= LAST_DAY and (number == 1 or day == 0), "an unknown kind of key")
        return kind

    @classmethod
    def read_entry(cls, reader):
        entry = {"id": reader.raw(16), "kind": cls.read_kind(reader)}
        entry["state"], until, entry["order"] = reader.number(1), reader.time(), reader.option(read_id)
        active = entry["state"] == 1 and until == 0 and entry["order"] is None
        require(active or entry["state"] == 2, "an unknown state of a key")
        reader.time()
        entry["born"], entry["check"], entry["data_key"] = reader.number(4), reader.raw(8), reader.raw(16)
        entry["salt"], entry["sealed"] = reader.raw(24), reader.raw(48)
        return entry

    @classmethod
    def read_dropped(cls, reader):
        gone = {"id": reader.raw(16), "kind": cls.read_kind(reader), "version": reader.number(8)}
        reader.time()
        gone["born"], gone["last"] = reader.number(4), reader.number(4)
        reader.time()
        gone["order"] = reader.option(read_id)
        reader.raw(8)
        return gone

    def open(self, entry):
        """The key in an entry."""
        kms_key, wrapped = self.data_keys[entry["data_key"]]
        context = {
            "strongroom:use": "ring",
            "strongroom:store": self.store.id_text,
            "strongroom:customer": self.customer_text,
            "strongroom:data-key": base32(entry["data_key"]),
        }
        if kms_key == "ring:outer":
            require(entry["kind"][0] == 3 and len(wrapped) == 32, "a key is under the outer seal alone")
            data_key = wrapped
        else:
            data_key = self.store.kms.data_key(kms_key, wrapped, context)
        sealing = expand(data_key, b"strongroom/v1/ring-entry\0" + entry["id"] + entry["salt"], 32)
        aad = self.store.id + self.customer + entry["id"] + entry["kind"]
        key = open_sealed(AES_256_GCM, sealing, aad, entry["sealed"])
        require(expand(key, b"strongroom/v1/check-value\0", 8) == entry["check"], "a check value is wrong")
        return key

    def open_blob(self, blob_text):
        """Metadata and plaintext of a blob."""
        blob = id_bytes(blob_text)
        day = int.from_bytes(blob[:3], "big")
        try:
            data = self.store.read("blobs", "blob", self.customer_text, date_of(day), blob_text)
        except Missing:
            raise NoBlob("there is no such blob") from None

        header = Reader(data)
        header.version(b"SRM-BLOB")
        length = header.number(4)
        require(245 <= length <= 39649 and length <= len(data), "authentication failed")
        header.data, payload = data[:length], data[length:]
        suite = header.number(2)
        require(suite in SUITES, "authentication failed")
        ids = header.raw(16), header.raw(16), header.raw(16)
        require(ids == (self.store.id, self.customer, blob), "authentication failed")
        sealed_at, kek = header.time(), header.raw(16)
        wrap = read_wrapped(header)
        front = header.at + 4
        sealed_metadata = header.bytes()
        header.end()
        require(len(sealed_metadata) >= 80 and len(sealed_metadata) % 64 == 16, "authentication failed")

        kinds = struct.pack(">BI", 1, day), struct.pack(">BI", 2, 0)
        if kek in self.entries:
            require(self.entries[kek]["kind"] in kinds, "authentication failed")
            aad = self.store.id + self.customer + blob + kek + struct.pack(">IH", day, suite)
            dek = self.unwrap(kek, suite, blob, wrap, aad)
        else:
            require(self.dropped.get(kek) in kinds, "authentication failed")
            dek = self.open_side(blob, day, suite)

        key = expand(dek, b"strongroom/v1/metadata\0" + struct.pack(">H", suite), 32)
        metadata = read_metadata(open_sealed(suite, key, data[:front], sealed_metadata))
        metadata.update(
            blob=blob_text, sealed_at_micros=sealed_at, retain_until=date_of(day), suite=SUITES[suite][0])
        context = hashlib.sha256(data[:length]).digest()
        return metadata, open_payload(suite, dek, context, payload)

    def unwrap(self, kek, suite, blob, wrap, aad):
        """The DEK in a wrap, with the help of the customer's KMS where it is strict."""
        kind, salt, wrapped = wrap
        label = b"strongroom/v1/dek-wrap\0" if kind == 1 else b"strongroom/v1/strict-wrap\0"
        key = self.open(self.entries[kek])
        wrapping = expand(key, label + struct.pack(">H", suite) + blob + salt, 32)
        plaintext = open_sealed(suite, wrapping, aad, wrapped)
        if kind == 1:
            return plaintext
        strict = Reader(plaintext)
        kms_key, ciphertext = strict.kms_key(), strict.bytes(6144)
        strict.end()
        context = {
            "strongroom:use": "blob",
            "strongroom:store": self.store.id_text,
            "strongroom:customer": self.customer_text,
            "strongroom:blob": base32(blob),
        }
        return self.store.kms.data_key(kms_key, ciphertext, context)

    def open_side(self, blob, blob_day, suite):
        """The DEK of a blob whose first key was dropped, by another wrap of it."""
        place = "blobs", "wrap", self.customer_text, base32(blob)
        keks = [id_bytes(name) for name in self.store.list("[0-9a-z]{26}", *place) if is_id(name)]
        live = [kek for kek in keks if kek in self.entries]
        if not live:
            raise Missing("the key of this blob was destroyed")
        refused = Refused("authentication failed")
        for kek in live:
            try:
                return self.read_side(kek, self.store.read(*place, base32(kek)), (blob, blob_day, suite))
            except Refused as why:
                refused = why
        raise refused

    def read_side(self, kek, data, of):
        blob, blob_day, suite = of
        side = Reader(data)
        side.version(b"SRM-WRAP")
        require(side.number(2) == suite, "authentication failed")
        ids = side.raw(16), side.raw(16), side.raw(16), side.raw(16)
        require(ids == (self.store.id, self.customer, blob, kek), "authentication failed")
        day = side.number(4)
        kind = self.entries[kek]["kind"]
        require(kind == struct.pack(">BI", 1, day) or (kind[0] == 2 and day == blob_day), "authentication failed")
        require(blob_day <= day, "authentication failed")
        side.time()
        wrap = read_wrapped(side)
        side.end()
        return self.unwrap(kek, suite, blob, wrap, data[:113])

    def find(self, name):
        """The blobs that were sealed under a name, newest first."""
        found = []
        for entry in self.entries.values():
            if entry["kind"][0] != 3:
                continue
            tag = hmac.new(self.open(entry), b"strongroom/v1/name\0" + name.encode(), hashlib.sha256).digest()
            found += self.store.list("[0-9a-f]{16}-[0-9a-z]{26}", "blobs", "name", self.customer_text, base32(tag))
        return [use[17:] for use in sorted(found) if is_id(use[17:])]

    def open_newest(self, name):
        for blob in self.find(name):
            try:
                metadata, plaintext = self.open_blob(blob)
            except NoBlob:
                # A seal that did not end.
                continue
            require(metadata["name"] == name, "authentication failed")
            return metadata, plaintext
        raise Missing("there is no blob of this name")


def read_wrapped(reader):
    """Kind, salt and sealed bytes of a wrap, in a header or beside it."""
    kind, salt = reader.number(1), reader.raw(24)
    require(kind in (1, 2), "authentication failed")
    return kind, salt, reader.raw(48) if kind == 1 else reader.bytes(6680)


def read_metadata(data):
    reader = Reader(data)
    name, content_type = reader.text(), reader.text()
    pairs = reader.list(lambda r: (r.text(), r.text()))
    ascending([key.encode() for key, _ in pairs])
    padding = reader.raw(len(data) - reader.at)
    require(len(padding) < 64 and not any(padding), "authentication failed")
    return {"name": name or None, "content_type": content_type or None, "pairs": dict(pairs)}


def open_payload(suite, dek, context, payload):
    """C2SP chunked-encryption v1."""
    body = len(payload) - 56
    require(body >= 0 and body % 16400 >= 16 and body // 16400 < 2 ** 38, "authentication failed")
    salt, commitment = payload[:24], payload[24:56]
    name = SUITES[suite][0].encode()
    derived = expand(dek, b"c2sp.org/chunked-encryption@v1+" + name + b"\0" + salt + context, 76)
    key, base_nonce = derived[:32], derived[32:44]
    require(hmac.compare_digest(derived[44:], commitment), "authentication failed")
    plaintext = []
    for number, at in enumerate(range(56, len(payload), 16400)):
        nonce = xor(base_nonce, number.to_bytes(12, "big"))
        plaintext.append(open_sealed(suite, key, b"", payload[at:at + 16400], nonce))
    return b"".join(plaintext)


# ---------------------------------------------------------------- the command

def main():
    parser = argparse.ArgumentParser(description="Opens one blob of a Strongroom store, without Strongroom.")
    parser.add_argument("store", help="root directory of the store")
    parser.add_argument("customer", help="a customer id, or label:LABEL")
    parser.add_argument("blob", nargs="?", help="a blob id")
    parser.add_argument("--name", help="open the newest blob of this name")
    parser.add_argument("--keys", metavar="FILE", help="data keys in the clear, as JSON")
    parser.add_argument("--local-kms", metavar="DIR", help="key directory of the local KMS")
    parser.add_argument("--metadata", metavar="FILE", help="where the metadata goes, as JSON")
    options = parser.parse_args()
    if (options.blob is None) == (options.name is None):
        parser.error("give a blob id or --name")
    if (options.keys is None) == (options.local_kms is None):
        parser.error("give --keys or --local-kms")
    try:
        kms = PlainKeys(options.keys) if options.keys else LocalKms(options.local_kms)
        store = Store(options.store, kms)
        customer = options.customer
        if customer.startswith("label:"):
            customer = store.customer_of(customer[len("label:"):])
        id_bytes(customer)
        ring = store.ring(customer)
        metadata, plaintext = ring.open_blob(options.blob) if options.blob else ring.open_newest(options.name)
    except Missing as missing:
        print(f"decode.py: {missing}", file=sys.stderr)
        return 3
    except Refused as refused:
        print(f"decode.py: {refused}", file=sys.stderr)
        return 1
    text = json.dumps(metadata, ensure_ascii=False, sort_keys=True)
    if options.metadata:
        with open(options.metadata, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    else:
        print(text, file=sys.stderr)
    sys.stdout.buffer.write(plaintext)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
