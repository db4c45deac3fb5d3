// Loaded by `node -r` before a server that would listen on all addresses: it listens on 127.0.0.1, whatever it asks for.
const net = require('net')
const listen = net.Server.prototype.listen

net.Server.prototype.listen = function (...wanted) {
  if (wanted[0] !== null && typeof wanted[0] === 'object' && 'port' in wanted[0]) {
    wanted[0] = { ...wanted[0], host: '127.0.0.1' }
  } else if (typeof wanted[0] === 'number') {
    wanted = [wanted[0], '127.0.0.1', ...wanted.slice(1).filter((argument) => typeof argument !== 'string')]
  }
  return listen.apply(this, wanted)
}
