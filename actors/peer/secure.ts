/** TLS as every connection of a peer has it: version 1.3, its own key, any certificate taken; whose it is, is checked after (verify.ts). */
import { createSecureContext, type SecureContext } from 'node:tls'

/** All of TLS 1.3. AES-128 first: as strong as the keys that are checked (128 bits), and the fastest where processors know AES. */
const CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256'

/** @param key the peer's, PEM. @param certificate around it, PEM */
export function secureContextOf({ key, certificate }: { key: string; certificate: string }): SecureContext {
  return createSecureContext({
    key,
    cert: certificate,
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    ciphers: CIPHERS,
    honorCipherOrder: true,
  })
}
